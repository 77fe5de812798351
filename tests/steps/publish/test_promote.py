"""The effect of publish: registration and the channel, in a real local store."""

from __future__ import annotations

from pathlib import Path

import pytest

from lane_artifacts import judge_lane, lane_measurements, publish_lanes, publish_settings
from modelmill.core import channels, manifest, promotable, registry
from modelmill.core.bundle import read_bundle
from modelmill.core.contract import JSON, PortType
from modelmill.core.errors import InputError
from modelmill.core.local_store import LocalStore
from modelmill.core.progress import SilentProgress
from modelmill.steps.publish.promote import promote


def stored(store: LocalStore, directory: Path) -> str:
    made = manifest.build(directory, PortType.BUNDLE)
    store.put_artifact(directory, made, SilentProgress())
    return made.digest


def promoted(store: LocalStore, artifact: str, **settings: str) -> dict[str, JSON]:
    directory = store.get_artifact(artifact, SilentProgress())
    outputs = {"bundle": (directory, artifact)}
    return dict(promote(store, outputs, publish_settings(**settings), SilentProgress()).facts)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_the_first_promotion_registers_the_bundle_and_makes_the_channel(store: LocalStore, bundle: Path) -> None:
    artifact = stored(store, bundle)
    facts = promoted(store, artifact)
    digest = read_bundle(bundle).digest
    assert facts == {
        "bundle": digest, "artifact": artifact, "channel": "staging", "moved": True, "previous": None,
    }  # fmt: skip
    channel = registry.show_channel(store, "banking", "staging")
    assert channel is not None
    assert (channel.bundle, len(channel.history), channel.history[0].run) == (digest, 1, "run-1")
    record = registry.find_bundle(store, "banking", digest)
    assert record is not None
    assert (record.artifact, record.run) == (artifact, "run-1")


def test_a_second_time_nothing_changes(store: LocalStore, bundle: Path) -> None:
    artifact = stored(store, bundle)
    promoted(store, artifact)
    before = {name: store.read(name) for name, _ in store.list_documents("registry/")}
    facts = promoted(store, artifact, run="run-2")
    assert facts["moved"] is False
    assert {name: store.read(name) for name, _ in store.list_documents("registry/")} == before


def test_the_same_model_with_new_evidence_leads_to_the_artifact_registered_first(
    store: LocalStore, tmp_path: Path, tiny_bert: Path
) -> None:
    artifacts = []
    for scale in (1.0, 1.3):
        lane = judge_lane(tmp_path / str(scale), tiny_bert, measurements=lane_measurements(scale))
        artifacts.append(stored(store, publish_lanes(tmp_path / f"b{scale}", {"cpu-int8": lane})))
    assert artifacts[0] != artifacts[1]
    facts = [promoted(store, artifact) for artifact in artifacts]
    assert [item["artifact"] for item in facts] == [artifacts[0], artifacts[0]]
    assert [item["moved"] for item in facts] == [True, False]


def test_an_artifact_that_is_gone_is_replaced_by_the_same_bundle_made_again(
    store: LocalStore, tmp_path: Path, tiny_bert: Path
) -> None:
    artifacts = []
    for scale in (1.0, 1.3):
        lane = judge_lane(tmp_path / str(scale), tiny_bert, measurements=lane_measurements(scale))
        artifacts.append(stored(store, publish_lanes(tmp_path / f"b{scale}", {"cpu-int8": lane})))
    promoted(store, artifacts[0])
    store.delete_artifact(artifacts[0])
    facts = promoted(store, artifacts[1])
    assert (facts["artifact"], facts["moved"]) == (artifacts[1], False)


def test_another_bundle_moves_the_channel_and_back(store: LocalStore, tmp_path: Path, tiny_bert: Path) -> None:
    artifacts = []
    for seed in (0, 1):
        lane = judge_lane(tmp_path / str(seed), tiny_bert, seed=seed)
        artifacts.append(stored(store, publish_lanes(tmp_path / f"b{seed}", {"cpu-int8": lane})))
    facts = [promoted(store, artifacts[index]) for index in (0, 1, 0)]
    assert [item["moved"] for item in facts] == [True, True, True]
    assert facts[1]["previous"] == facts[0]["bundle"]
    channel = registry.show_channel(store, "banking", "staging")
    assert channel is not None
    assert [move.number for move in channel.history] == [1, 2, 3]
    judged_on = [
        set(promotable.judged_on(promotable.verdicts_of(store.get_artifact(artifact, SilentProgress()))))
        for artifact in artifacts
    ]
    assert all(judged_on)
    assert registry.artifacts_in_use(store) == set(artifacts) | judged_on[0] | judged_on[1]
    assert registry.artifacts_in_use(store, last=1) == {artifacts[0]} | judged_on[0]


def test_a_pinned_channel_holds_the_bundle_back_and_says_who_pinned_it(
    store: LocalStore, tmp_path: Path, tiny_bert: Path
) -> None:
    artifacts = []
    for seed in (0, 1):
        lane = judge_lane(tmp_path / str(seed), tiny_bert, seed=seed)
        artifacts.append(stored(store, publish_lanes(tmp_path / f"b{seed}", {"cpu-int8": lane})))
    first, second = (promoted(store, artifact) for artifact in artifacts)
    record = registry.find_bundle(store, "banking", str(first["bundle"]))
    assert record is not None
    channels.roll_back(store, "banking", "staging", record, by="ada", why="slow", progress=SilentProgress())
    facts = promoted(store, artifacts[1], run="run-9")
    assert (facts["bundle"], facts["moved"]) == (second["bundle"], False)
    assert str(facts["held"]).startswith(
        f"held back by the pin: ada pinned banking staging to {first['bundle']} (slow)"
    )


def test_a_bundle_of_another_model_is_refused(store: LocalStore, bundle: Path) -> None:
    artifact = stored(store, bundle)
    with pytest.raises(InputError, match="this bundle is of the model banking, and other is published"):
        promoted(store, artifact, model="other")
    assert list(store.list_documents("registry/")) == []


def test_a_bundle_that_verify_refuses_is_never_registered(store: LocalStore, tmp_path: Path, tiny_bert: Path) -> None:
    planted = publish_lanes(tmp_path / "b", {"cpu-int8": judge_lane(tmp_path / "lane", tiny_bert)})
    (planted / "backdoor.so").write_bytes(b"x")
    artifact = stored(store, planted)
    with pytest.raises(InputError, match=r"backdoor\.so was added"):
        promoted(store, artifact)
    assert list(store.list_documents("registry/")) == []
