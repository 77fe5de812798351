"""Waiting for an InferenceService with the real Kubernetes client, and what its status means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kserve_api import cluster, service
from modelmill.core.errors import DeploymentError, OutsideError
from modelmill.core.progress import SilentProgress
from modelmill.serving import rollout
from modelmill.serving.rollout import Health, seen

URI = "s3://models/line/artifacts/" + "c" * 64
STALE: dict[str, Any] = service(URI)
STALE["metadata"]["generation"] = 4


@pytest.mark.parametrize(
    ("found", "health", "words"),
    [
        (None, Health.UNSEEN, "no such InferenceService"),
        (service("s3://models/other"), Health.UNSEEN, "not yet the bundle"),
        (STALE, Health.LATE, "has not seen the bundle"),
        (service(URI, ready=False), Health.LATE, "PredictorReady: MinimumReplicasUnavailable"),
        (
            service(
                URI,
                ready=False,
                modelStatus={
                    "transitionStatus": "BlockedByFailedLoad",
                    "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "the bundle has no lane cpu-int8\n"},
                },
            ),
            Health.FAILED,
            "BlockedByFailedLoad: the bundle has no lane cpu-int8",
        ),
        (service(URI, address="http://banking.models.example"), Health.READY, "serves the bundle"),
        ({"spec": {"predictor": {"model": {"storageUri": URI}}}}, Health.LATE, "says nothing yet"),
    ],
)
def test_what_an_inference_service_says(found: dict[str, Any] | None, health: Health, words: str) -> None:
    rollout_seen = seen(found, URI)
    assert rollout_seen.health is health
    assert words in rollout_seen.words


def test_it_waits_through_absence_and_restarts_until_the_bundle_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[tuple[int, Any]] = [
        (404, {"kind": "Status", "code": 404}),
        (200, service("s3://models/other", address="http://old")),
        (503, {"kind": "Status", "code": 503}),
        (200, service(URI, ready=False)),
        (200, service(URI, address="http://new")),
    ]
    said: list[str] = []

    class Told(SilentProgress):
        def fact(self, text: str) -> None:
            said.append(text)

    with cluster(tmp_path, lambda namespace, name: answers.pop(0)) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        found = rollout.wait(
            rollout.connect(), "models", "banking", URI, seconds=30, progress=Told(), poll_seconds=0.01
        )
    assert (found.health, found.address) == (Health.READY, "http://new")
    assert not answers
    assert [text.partition(": ")[2].split(" ")[0] for text in said] == ["there", "it", "the", "not", "it"]


@pytest.mark.parametrize(
    ("code", "document", "words"),
    [
        (404, {"kind": "Status", "code": 404}, "there is no such InferenceService yet"),
        (200, service("s3://models/other"), f"it names s3://models/other, not yet the bundle at {URI}"),
        (200, {"spec": {}}, "it names None, not yet the bundle"),
        (503, {"kind": "Status", "code": 503}, "the cluster does not answer"),
    ],
)
def test_where_the_bundle_is_not_to_be_seen_nothing_is_concluded(
    code: int, document: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(tmp_path, lambda namespace, name: (code, document)) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        with pytest.raises(OutsideError, match=f"cannot be judged, and nothing was taken back: {words}") as caught:
            rollout.wait(rollout.connect(), "models", "banking", URI, seconds=0, progress=SilentProgress())
    assert caught.value.exit_code == 5
    assert caught.value.where == "models/banking"
    for part in ("--namespace", "--name", "--uri", URI, "the sync from Git"):
        assert part in str(caught.value.fix)


@pytest.mark.parametrize(("code", "error"), [(403, DeploymentError), (401, DeploymentError), (500, OutsideError)])
def test_a_cluster_that_refuses_is_told(
    code: int, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(tmp_path, lambda namespace, name: (code, {"kind": "Status", "code": code})) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        with pytest.raises(error, match="models/banking"):
            rollout.wait(
                rollout.connect(), "models", "banking", URI, seconds=30, progress=SilentProgress(), poll_seconds=0.01
            )


def test_a_cluster_that_is_away_is_told_and_nothing_is_concluded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(tmp_path, lambda namespace, name: (200, {})) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
    with pytest.raises(OutsideError, match="does not answer"):
        rollout.wait(
            rollout.connect(), "models", "banking", URI, seconds=30, progress=SilentProgress(), poll_seconds=0.01
        )


def test_without_a_cluster_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(DeploymentError, match=r"no cluster to ask[\s\S]*kubeconfig"):
        rollout.connect()
    (tmp_path / "none").write_text(json.dumps({}))
    with pytest.raises(DeploymentError, match="no cluster to ask"):
        rollout.connect()
