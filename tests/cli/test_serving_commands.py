"""The serving commands as a person uses them: objects and values of what a channel names, and wrong input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from git_promotions import published
from kserve_api import cluster, service
from kserve_schema import problems
from lane_artifacts import judge_lane, lane_measurements, publish_lanes
from modelmill.cli import main as command
from modelmill.core.local_store import LocalStore
from modelmill.serving.kserve import ServingValues, manifests

IMAGE = "registry.example/serving@sha256:" + "b" * 64
PLACE = "s3://models/line/artifacts/" + "c" * 64


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> LocalStore:
    """A store whose channel names a bundle of two lanes. Read-only."""
    work = tmp_path_factory.mktemp("serving")
    lanes = {name: judge_lane(work / name, tiny_bert, name, seed=seed) for seed, name in enumerate(("cpu-a", "cpu-b"))}
    found = LocalStore(work / "store")
    published(found, publish_lanes(work / "bundle", lanes))
    return found


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """What a command gives: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["modelmill", "serving", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    output, errors = capsys.readouterr()
    return int(ended.value.code or 0), output, errors


def test_what_a_channel_names_is_rendered_with_the_threads_that_were_measured(
    store: LocalStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["banking", "staging", "--store", store.uri, "--image", IMAGE, "--target", "cpu-b", "--uri", PLACE]
    code, output, errors = said(capsys, monkeypatch, "render", *given, "--canary", "10", "--namespace", "models")
    assert code == 0, errors
    runtime, service = yaml.safe_load_all(output)
    assert problems(runtime) == problems(service) == []
    assert service["spec"]["predictor"]["canaryTrafficPercent"] == 10
    assert service["spec"]["predictor"]["model"]["storageUri"] == PLACE
    resources = runtime["spec"]["containers"][0]["resources"]["limits"]
    # 200 MiB at its peak: twice that and 512 MiB, in steps of 256.
    assert resources == {"cpu": str(lane_measurements().hardware.threads), "memory": "1024Mi"}
    code, output, _ = said(capsys, monkeypatch, "values", *given, "--canary", "10")
    values = ServingValues.model_validate(yaml.safe_load(output))
    assert json.loads(json.dumps(manifests(values, "models"))) == [runtime, service]


@pytest.mark.parametrize(
    ("changes", "words", "fix"),
    [
        ({"--target": None}, "the bundle has several lanes", "cpu-a, cpu-b"),
        ({"--target": "gpu"}, "no lane gpu", "cpu-a, cpu-b"),
        ({"--image": "registry.example/serving:1"}, "not pinned by its digest", "NAME@sha256"),
        ({"--uri": None}, "a folder of this machine", "s3://BUCKET/PREFIX"),
        ({"--uri": "ftp://x/y"}, "uri", ""),
        ({"--uri": "s3://models/a b"}, "uri", ""),
        ({"--namespace": "Bad NS"}, "'Bad NS' cannot be a namespace", "lower-case letters"),
        ({"--service-account": "Bad Account!"}, "serviceAccountName", ""),
        ({"CHANNEL": "production"}, "names no registered bundle", "modelmill channel show banking production"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(
    changes: dict[str, str | None],
    words: str,
    fix: str,
    store: LocalStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"--store": store.uri, "--image": IMAGE, "--target": "cpu-b", "--uri": PLACE, **changes}
    channel = options.pop("CHANNEL", "staging")
    given = [part for name, value in options.items() if value is not None for part in (name, value)]
    code, output, errors = said(capsys, monkeypatch, "render", "banking", str(channel), *given)
    assert (code, output) == (2, "")
    assert words in errors
    assert fix in errors
    assert "Traceback" not in errors


def test_a_rollout_that_is_not_healthy_is_exit_code_3_and_says_why(
    store: LocalStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["banking", "staging", "--store", store.uri, "--target", "cpu-b", "--uri", PLACE, "--minutes", "0"]
    with cluster(tmp_path, lambda namespace, name: (200, service(PLACE, ready=False))) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        code, output, errors = said(capsys, monkeypatch, "check", *given, "--json")
    assert code == 3, errors
    found = json.loads(output)
    assert (found["healthy"], found["rolled_back_to"]) == (False, None)
    assert "PredictorReady: MinimumReplicasUnavailable" in found["words"]
    assert "no bundle before it" in found["words"]
    assert "default/banking: not ready" in errors


def test_a_cluster_to_which_the_bundle_has_not_come_is_exit_code_5_and_no_verdict(
    store: LocalStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["banking", "staging", "--store", store.uri, "--target", "cpu-b", "--uri", PLACE, "--minutes", "0"]
    with cluster(tmp_path, lambda namespace, name: (200, service("s3://models/before"))) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        code, output, errors = said(capsys, monkeypatch, "check", *given, "--namespace", "models")
    assert (code, output) == (5, "")
    assert f"nothing was taken back: it names s3://models/before, not yet the bundle at {PLACE}" in errors
    assert "where: models/banking" in errors


@pytest.mark.parametrize("allowed", ["0", "-1", "nan"])
def test_no_time_at_all_cannot_be_asked_for(
    store: LocalStore, allowed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["banking", "staging", "--store", store.uri, "--max-p95-ms", allowed]
    code, output, errors = said(capsys, monkeypatch, "check", *given)
    assert (code, output) == (2, "")
    assert "no text is answered within" in errors
    assert "where: --max-p95-ms" in errors
