"""All that the chart renders is valid Kubernetes, by every version's own schema, whatever is switched on."""

from __future__ import annotations

import copy
import functools
import itertools
import json
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import SchemaNotFoundError

from charts.settings import ROWS, values
from helm import CHART, Helm

OLDEST = 30
VERSIONS = [item for item in kubernetes_validate.utils.all_versions() if int(item.split(".")[1]) >= OLDEST]


@pytest.fixture(scope="module", autouse=True)
def _schemas_are_read_once() -> Iterator[None]:
    # The validator reads two files, one of megabytes, for each object.
    with pytest.MonkeyPatch.context() as patched:
        read = kubernetes_validate.utils.schema_contents
        patched.setattr(kubernetes_validate.utils, "schema_contents", functools.cache(read))
        yield


@pytest.fixture(scope="module")
def objects(helm: Helm) -> list[dict[str, Any]]:
    """Each different object that the rows render."""
    found = {json.dumps(item, sort_keys=True): item for row in ROWS for item in helm.rendered(values(row)).objects}
    return list(found.values())


def check(item: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(item, version, strict=True)


def test_each_pair_of_settings_occurs_in_the_rows() -> None:
    for one, other in itertools.combinations(range(7), 2):
        assert {(row[one], row[other]) for row in ROWS} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_lint_finds_nothing(helm: Helm) -> None:
    for row in ROWS:
        ended = helm("lint", "--strict", CHART, "--values", helm.values(values(row)))
        assert ended.returncode == 0, ended.stdout
        assert "[WARNING]" not in ended.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_in_every_version(objects: list[dict[str, Any]], version: str) -> None:
    kinds = {item["kind"] for item in objects}
    assert kinds == {
        "ConfigMap",
        "LimitRange",
        "Namespace",
        "NetworkPolicy",
        "ResourceQuota",
        "Role",
        "RoleBinding",
        "ServiceAccount",
    }
    for item in objects:
        check(item, version)


def test_a_planted_field_and_an_unknown_kind_are_seen(objects: list[dict[str, Any]]) -> None:
    policy = copy.deepcopy(next(item for item in objects if item["kind"] == "NetworkPolicy"))
    policy["spec"]["egres"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="egres"):
        check(policy, "1.33")
    with pytest.raises(SchemaNotFoundError):
        check({**policy, "kind": "NetworkPolicies"}, "1.33")


def test_the_oldest_version_is_the_charts_and_older_ones_are_refused(helm: Helm) -> None:
    assert VERSIONS[0] == f"1.{OLDEST}.0"
    newest = helm.template(values(ROWS[1]), kubernetes=VERSIONS[-1])
    assert newest.returncode == 0, newest.stderr
    assert newest.stdout == helm.template(values(ROWS[1]), kubernetes=VERSIONS[0]).stdout
    assert "kubeVersion" in helm.refused(values(ROWS[1]), kubernetes=f"1.{OLDEST - 1}")


def test_no_object_holds_a_value_of_a_secret_and_all_are_labelled(objects: list[dict[str, Any]]) -> None:
    for item in objects:
        assert item["kind"] != "Secret"
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "modelmill"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["helm.sh/chart"].startswith("modelmill-")


def _identities(helm: Helm, release: str, namespace: str) -> set[tuple[str, str, str]]:
    every = {**values(ROWS[7]), "airflow": {"enabled": True}, "kubeflow": {"enabled": True}, "quota": {"pods": 5}}
    every["networkPolicy"] = values(ROWS[4])["networkPolicy"]
    found = helm.rendered(every, release=release, namespace=namespace).objects
    names = [
        (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])
        for item in found
        if item["kind"] != "Namespace"
    ]
    assert len(names) == len(set(names))
    return set(names)


def test_two_releases_do_not_clash(helm: Helm) -> None:
    one = _identities(helm, "modelmill", "one")
    assert not one & _identities(helm, "modelmill", "two")
    assert not one & _identities(helm, "other", "one")
    assert all(len(name) <= 63 for _, _, name in _identities(helm, "r" * 53, "n" * 63))
    assert {namespace for _, namespace, _ in one} == {"one", "airflow"}


def test_the_chart_packs_with_all_that_it_renders(helm: Helm, tmp_path: Any) -> None:
    packed = helm("package", CHART, "--destination", tmp_path)
    assert packed.returncode == 0, packed.stderr
    (archive,) = tmp_path.glob("*.tgz")
    assert archive.name == f"modelmill-{yaml.safe_load((CHART / 'Chart.yaml').read_text())['version']}.tgz"
    values_file = helm.values(values(ROWS[2]))
    arguments = ["--namespace", "modelmill", "--kube-version", "1.33", "--values", values_file]
    rendered = helm("template", "modelmill", archive, *arguments)
    assert rendered.stdout == helm.template(values(ROWS[2])).stdout
    assert "dags_of" in rendered.stdout
