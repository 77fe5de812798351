"""A security linter finds nothing in what the chart renders but what is there for a reason that stands here."""

from __future__ import annotations

import json

import pytest
import yaml

import trivy
from charts.settings import ROWS, values
from helm import Helm

ACCEPTED = {
    "KSV048": ("role 'modelmill-airflow'", "Airflow starts and ends the steps' pods: that is what the role is for"),
    "KSV053": ("role 'modelmill-airflow'", "the provider reads a step's pointer from its sidecar by an exec"),
    "KSV113": ("role 'modelmill-kubeflow'", "Kubeflow's launcher reads one secret, by name: its pipeline root's"),
    "AVD-KSV-01010": ("configmap 'modelmill-deployment'", "names of variables and of secrets' keys, no value of one"),
    "AVD-KSV-0109": ("configmap 'modelmill-deployment'", "the same"),
    "KSV116": ("", "a check of pods that looks at all kinds; the chart has no pod"),
}
"""Check → the one object that it may name, and why that is as it should be."""
PLANTED = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: planted, namespace: modelmill}
rules:
  - {apiGroups: [""], resources: [secrets], verbs: ["*"]}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    folder = tmp_path_factory.mktemp("manifests")
    objects = {json.dumps(item, sort_keys=True) for row in ROWS for item in helm.rendered(values(row)).objects}
    (folder / "chart.yaml").write_text(yaml.safe_dump_all(json.loads(item) for item in sorted(objects)), "utf-8")
    (folder / "planted.yaml").write_text(PLANTED, "utf-8")
    return trivy.findings(folder, tmp_path_factory.mktemp("trivy"))


def test_nothing_is_found_that_is_not_accepted_for_a_reason(found: dict[str, set[tuple[str, str]]]) -> None:
    unaccepted = {
        (check, said)
        for check, said in found["chart.yaml"]
        if check not in ACCEPTED or not said.lower().startswith(ACCEPTED[check][0])
    }
    assert not unaccepted
    assert {check for check, _ in found["chart.yaml"]} == set(ACCEPTED), "an exception that nothing needs any more"


def test_a_role_that_may_all_with_secrets_is_seen(found: dict[str, set[tuple[str, str]]]) -> None:
    assert {"KSV045", "KSV113"} <= {check for check, _ in found["planted.yaml"]}
