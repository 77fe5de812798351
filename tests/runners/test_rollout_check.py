"""`modelmill serving check`: a real Triton behind an InferenceService; what is not healthy is taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from environments import triton_python
from git_promotions import published
from git_servers import file_of, hook, make_repository
from kserve_api import cluster, service
from lane_artifacts import (
    TASK,
    judge_lane,
    lane_measurements,
    publish_lanes,
    write_lane_choice,
    write_lane_measurements,
)
from modelmill.core import channels, manifest, promotable, registry
from modelmill.core.bundle import read_bundle, verify
from modelmill.core.contract import PortType
from modelmill.core.errors import DeploymentError, GitError, OutsideError
from modelmill.core.local_store import LocalStore
from modelmill.core.progress import SilentProgress
from modelmill.deployment import Deployment
from modelmill.runners.rollout_check import Asked, Checked, check
from modelmill.serving.server import VARIABLE, find, serve
from modelmill.steps.evaluate import contract as evaluate
from modelmill.steps.evaluate.run import candidate as run_candidate
from modelmill.steps.evaluate.smoke import write_smoke
from modelmill.steps.gate import contract as gate
from modelmill.steps.gate.run import run as run_gate
from modelmill.steps.publish.gitops_settings import GitOps
from modelmill.targets.base import Runtime
from tiny_artifacts import random_rows, rows_artifact

SILENT = SilentProgress()
ASKED = Asked(model="banking", channel="staging", namespace="models", uri="s3://here", seconds=0.5, texts=60)


def evaluated_lane(work: Path, model: Path) -> dict[str, Path]:
    """A lane whose predictions are the model's own."""
    lane = {
        "model": model,
        "rows": rows_artifact(work / "rows", random_rows(101)),
        "choice": write_lane_choice(work / "c"),
    }
    lane["candidate"] = work / "candidate"
    lane["candidate"].mkdir()
    run_candidate(
        evaluate.CandidateInputs(model=model, rows=lane["rows"]),
        evaluate.CandidateOutputs(predictions=lane["candidate"]),
        evaluate.CandidateSettings(task=TASK, runtime=Runtime.ONNXRUNTIME),
        SILENT,
    )
    lane["baseline"] = lane["candidate"]
    lane["measurements"] = write_lane_measurements(work / "measurements", lane_measurements())
    for name in ("smoke", "verdict", "report"):
        lane[name] = work / name
        lane[name].mkdir()
    asked = {name: lane[name] for name in ("model", "measurements", "rows")}
    settings = evaluate.SmokeSettings(target="cpu-int8", name="banking", runtime=Runtime.ONNXRUNTIME)
    write_smoke(evaluate.SmokeInputs(**asked, predictions=lane["candidate"]), lane["smoke"], settings, SILENT)
    given = {name: lane[name] for name in ("baseline", "candidate", "measurements", "smoke", "model", "rows")}
    policy = gate.Policy(max_drop_points=5)
    outputs = gate.Outputs(verdict=lane["verdict"], report=lane["report"])
    run_gate(gate.Inputs(**given), outputs, gate.Settings(task=TASK, target="cpu-int8", policy=policy), SILENT)
    return lane


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, quantized: Path) -> list[dict[str, Path]]:
    """One that was served before, and the one that is to be."""
    work = tmp_path_factory.mktemp("rollout")
    return [judge_lane(work / "before", tiny_bert), evaluated_lane(work, quantized)]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, lanes: list[dict[str, Path]]) -> list[Path]:
    work = tmp_path_factory.mktemp("bundles")
    return [publish_lanes(work / str(number), {"cpu-int8": lane}) for number, lane in enumerate(lanes)]


@pytest.fixture(scope="module")
def addresses(bundles: list[Path]) -> Iterator[list[str]]:
    """Both bundles as published, each in a real Triton."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(VARIABLE, str(triton_python().parents[1]))
        installation = find()
    assert installation is not None
    with ExitStack() as stack:
        yield [stack.enter_context(serve(installation, bundle / "serving/cpu-int8", "banking")) for bundle in bundles]


@pytest.fixture
def store(tmp_path: Path, bundles: list[Path], lanes: list[dict[str, Path]]) -> LocalStore:
    """A store whose channel names the second bundle, after the first."""
    found = LocalStore(tmp_path / "store")
    for bundle in bundles:
        published(found, bundle)
    for port, type in (("rows", PortType.ROWS), ("candidate", PortType.PREDICTIONS)):
        found.put_artifact(lanes[1][port], manifest.build(lanes[1][port], type), SILENT)
    return found


Ask = Callable[..., Checked]


@pytest.fixture
def ask(tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Check against a cluster that says so."""

    def asked(
        found: dict[str, Any], deployment: Deployment | None = None, by: str | None = "ci", **changes: Any
    ) -> Checked:
        with cluster(tmp_path, lambda namespace, name: (200, found)) as config:
            monkeypatch.setenv("KUBECONFIG", str(config))
            return check(store, deployment or Deployment(), ASKED.model_copy(update=changes), by, SILENT)

    return asked


def named(store: LocalStore) -> tuple[str, bool]:
    """What the channel names, and whether it is pinned."""
    channel = registry.show_channel(store, "banking", "staging")
    assert channel is not None
    return channel.bundle, channel.pin is not None


def test_a_bundle_that_is_served_as_it_was_evaluated_stays(
    ask: Ask, store: LocalStore, addresses: list[str], bundles: list[Path]
) -> None:
    before = named(store)
    found = ask(service("s3://here", address=addresses[1]))
    assert found.healthy, found.words
    assert found.rows >= 30
    assert found.differing == 0
    assert found.p95_ms is not None
    assert named(store) == before == (found.bundle, False)
    # Serving it wrote nothing into it.
    assert verify(bundles[1]).digest == found.bundle


def test_a_rollout_that_does_not_become_ready_is_rolled_back_and_pinned_in_git_too(
    ask: Ask, store: LocalStore, bundles: list[Path], tmp_path: Path
) -> None:
    repository = make_repository(tmp_path / "overlays.git")
    git = Deployment(git=GitOps(remote=f"file://{repository}"))
    found = ask(service("s3://here", ready=False), git)
    assert not found.healthy
    assert "MinimumReplicasUnavailable" in found.words
    assert found.rolled_back_to == named(store)[0] != found.bundle
    assert named(store)[1]
    channel = registry.show_channel(store, "banking", "staging")
    assert channel is not None
    assert channel.arrived.by == "ci"
    assert str(channel.arrived.why).startswith("serving check: models/banking is not healthy")
    written = file_of(repository, "overlays/banking/staging/promotion/kustomization.yaml")
    assert str(found.rolled_back_to) in written
    assert "main has" in str(found.git)


def test_a_server_of_another_model_is_rolled_back(ask: Ask, store: LocalStore, addresses: list[str]) -> None:
    found = ask(service("s3://here", address=addresses[0]))
    assert not found.healthy
    assert found.differing > 0
    assert named(store) == (found.rolled_back_to, True)


def test_time_that_is_not_allowed_is_rolled_back(ask: Ask, store: LocalStore, addresses: list[str]) -> None:
    found = ask(service("s3://here", address=addresses[1]), max_p95_ms=0.0001)
    assert not found.healthy
    assert "0.0001 ms are allowed" in found.words
    assert named(store) == (found.rolled_back_to, True)


@pytest.mark.parametrize("found", [{}, service("s3://models/before", address="http://127.0.0.1:9")])
def test_a_cluster_that_does_not_name_the_bundle_takes_nothing_back(
    ask: Ask, store: LocalStore, found: dict[str, Any]
) -> None:
    before = named(store)
    with pytest.raises(OutsideError, match="cannot be judged, and nothing was taken back"):
        ask(found)
    assert named(store) == before


def test_git_that_could_not_follow_takes_nothing_back_and_says_what_was_found(
    ask: Ask, store: LocalStore, tmp_path: Path
) -> None:
    before = named(store)
    repository = make_repository(tmp_path / "overlays.git")
    git = Deployment(git=GitOps(remote=str(repository), branch="release"))
    for _ in range(2):
        with pytest.raises(DeploymentError, match=r"is not healthy.*nothing was moved.*no branch release"):
            ask(service("s3://here", ready=False), git)
    assert named(store) == before


def test_git_that_takes_no_push_is_told_with_what_was_found_and_how_to_go_on(
    ask: Ask, store: LocalStore, tmp_path: Path
) -> None:
    repository = make_repository(tmp_path / "overlays.git")
    hook(repository, "policy: no")
    with pytest.raises(GitError, match=r"is not healthy.*rolled back to .* and Git does not: .*policy: no") as caught:
        ask(service("s3://here", ready=False), Deployment(git=GitOps(remote=str(repository))))
    back, pinned = named(store)
    assert pinned
    assert f"modelmill channel rollback banking staging --to {back}" in str(caught.value.fix)


def moved_on(store: LocalStore, bundle: Path) -> None:
    """A person lets the channel name that bundle."""
    record = promotable.find_named(store, "banking", read_bundle(bundle).digest)
    channels.promote(store, "banking", "staging", record, by="ada", why=None, override=None, progress=SILENT)


def test_a_channel_that_moved_on_during_the_check_stays(
    store: LocalStore, bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(namespace: str, name: str) -> tuple[int, Any]:
        moved_on(store, bundles[0])
        return 200, service("s3://here", ready=False)

    with cluster(tmp_path, answer) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        found = check(store, Deployment(), ASKED, "ci", SILENT)
    assert not found.healthy
    assert "names another bundle by now, and stays" in found.words
    assert found.rolled_back_to is None
    assert named(store) == (read_bundle(bundles[0]).digest, False)


def test_a_channel_that_moves_on_in_the_moment_of_the_rollback_stays(
    store: LocalStore, bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Raced(LocalStore):
        """A store in which somebody moves the channel when the rollback has already looked at it."""

        def check_artifact(self, digest: str) -> str | None:
            moved_on(store, bundles[0])
            return super().check_artifact(digest)

    with cluster(tmp_path, lambda namespace, name: (200, service("s3://here", ready=False))) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        found = check(Raced(Path(store.uri)), Deployment(), ASKED, "ci", SILENT)
    assert "names another bundle by now, and stays" in found.words
    assert found.rolled_back_to is None
    # As the person left it, who pins nothing.
    assert named(store) == (read_bundle(bundles[0]).digest, False)


def test_without_leave_nothing_is_taken_back(ask: Ask, store: LocalStore) -> None:
    before = named(store)
    assert not ask(service("s3://here", ready=False), by=None).healthy
    assert named(store) == before


def test_a_channel_with_nothing_before_stays_and_says_so(
    ask: Ask, store: LocalStore, bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = LocalStore(tmp_path / "other")
    published(other, bundles[1])
    with cluster(tmp_path, lambda namespace, name: (200, service("s3://here", ready=False))) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        found = check(other, Deployment(), ASKED, "ci", SILENT)
    assert not found.healthy
    assert "no bundle before it" in found.words


def test_a_server_that_cannot_be_reached_is_no_verdict(ask: Ask, store: LocalStore) -> None:
    before = named(store)
    with pytest.raises(OutsideError, match="does not answer"):
        ask(service("s3://here", address="http://127.0.0.1:9"))
    assert named(store) == before
