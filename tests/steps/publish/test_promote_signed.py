"""The effect of publish where it has a signing key: what it lets in, and what takes whose place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lane_artifacts import judge_lane, lane_measurements, publish_lanes, publish_settings
from modelmill.core import channels, manifest, promotable, records, registry
from modelmill.core.bundle import read_bundle
from modelmill.core.contract import JSON
from modelmill.core.errors import InputError
from modelmill.core.keys import KEY_VARIABLE, public_key
from modelmill.core.local_store import LocalStore
from modelmill.core.progress import SilentProgress
from modelmill.core.registry_documents import MoveKind
from modelmill.core.signature import verify
from modelmill.runners import container
from modelmill.steps.publish.contract import STEP, Settings
from modelmill.steps.publish.promote import promote
from modelmill.steps.publish.resolve import resolve
from signing_keys import Keys, make_keys
from stored_things import make_record


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def lane(tmp_path: Path, tiny_bert: Path) -> dict[str, Path]:
    return judge_lane(tmp_path / "lane", tiny_bert)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """A pair whose private half the environment names."""
    made = make_keys(tmp_path / "keys")
    monkeypatch.setenv(KEY_VARIABLE, made.private.read_text("ascii"))
    return made


def stored(store: LocalStore, directory: Path, type: str) -> str:
    made = manifest.build(directory, type)
    store.put_artifact(directory, made, SilentProgress())
    return made.digest


def promoted(store: LocalStore, directory: Path, settings: Settings) -> dict[str, JSON]:
    artifact = stored(store, directory, "bundle")
    outputs = {"bundle": (store.get_artifact(artifact, SilentProgress()), artifact)}
    return dict(promote(store, outputs, settings, SilentProgress()).facts)


def prepared(store: LocalStore, lane: dict[str, Path]) -> container.Prepared:
    inputs = {
        port: {"cpu-int8": stored(store, lane[name], name)}
        for port, name in (("models", "model"), ("choices", "choice"), ("verdicts", "verdict"))
    }
    return container.prepare(STEP, publish_settings(), inputs, SilentProgress())


def test_a_run_with_a_key_signs_and_a_second_one_finds_what_was_signed(
    store: LocalStore, lane: dict[str, Path], keys: Keys
) -> None:
    first, second = (container.run_step(store, prepared(store, lane), SilentProgress()) for _ in range(2))
    assert (first.cached, second.cached) == (False, True)
    assert first.record.outputs == second.record.outputs
    bundle = store.get_artifact(first.record.outputs["bundle"], SilentProgress())
    assert verify(bundle, public_key(keys.public)).signature == "checked"
    record = registry.find_bundle(store, "banking", str(first.effect["bundle"]))
    assert record is not None
    assert record.signer == public_key(keys.public).fingerprint


def test_a_key_that_is_given_later_signs_the_same_bundle_anew(
    store: LocalStore, lane: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = []
    for number in range(3):
        if number:
            monkeypatch.setenv(KEY_VARIABLE, str(make_keys(tmp_path / str(number)).private))
        facts.append(container.run_step(store, prepared(store, lane), SilentProgress()).effect)
    assert len({str(item["bundle"]) for item in facts}) == 1
    assert len({str(item["artifact"]) for item in facts}) == 3
    assert [item["moved"] for item in facts] == [True, True, True]
    record = registry.find_bundle(store, "banking", str(facts[0]["bundle"]))
    assert record is not None
    # Servers may read what the channel led to before.
    assert record.signers.keys() == {item["artifact"] for item in facts}
    channel = registry.show_channel(store, "banking", "staging")
    assert channel is not None
    assert [(move.kind, move.artifact) for move in channel.history] == [
        (kind, item["artifact"])
        for kind, item in zip([MoveKind.PUBLISHED, MoveKind.SIGNED_ANEW, MoveKind.SIGNED_ANEW], facts, strict=True)
    ]
    assert registry.artifacts_in_use(store) == {str(item["artifact"]) for item in facts} | set(record.judged_on)
    monkeypatch.delenv(KEY_VARIABLE)
    unsigned = container.run_step(store, prepared(store, lane), SilentProgress())
    assert (unsigned.cached, unsigned.effect["artifact"]) == (True, facts[2]["artifact"])


def test_new_evidence_of_the_same_signer_leads_to_the_artifact_registered_first(
    store: LocalStore, tmp_path: Path, tiny_bert: Path, keys: Keys
) -> None:
    settings = resolve(publish_settings(), SilentProgress())
    facts = []
    for scale in (1.0, 1.3):
        lane = judge_lane(tmp_path / str(scale), tiny_bert, measurements=lane_measurements(scale))
        bundle = publish_lanes(tmp_path / f"b{scale}", {"cpu-int8": lane}, key=keys)
        facts.append(promoted(store, bundle, settings))
    assert facts[1]["artifact"] == facts[0]["artifact"]


def test_what_a_channel_leads_to_changes_by_its_own_moves_alone(
    store: LocalStore, lane: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [make_keys(tmp_path / name) for name in ("day", "night")]
    bundles = [publish_lanes(tmp_path / f"b{number}", {"cpu-int8": lane}, key=key) for number, key in enumerate(pairs)]

    def publish(number: int, channel: str) -> dict[str, JSON]:
        monkeypatch.setenv(KEY_VARIABLE, str(pairs[number].private))
        settings = resolve(publish_settings().model_copy(update={"channel": channel}), SilentProgress())
        return promoted(store, bundles[number], settings)

    def leads_to(channel: str) -> str:
        found = registry.show_channel(store, "banking", channel)
        assert found is not None
        record = registry.served(store, found)
        assert record is not None
        assert record.signer == public_key(pairs[record.artifact == night["artifact"]].public).fingerprint
        return record.artifact

    day, night = publish(0, "staging"), publish(1, "other")
    assert day["bundle"] == night["bundle"]
    assert day["artifact"] != night["artifact"]
    for _ in range(3):
        assert not publish(0, "staging")["moved"]
        assert not publish(1, "other")["moved"]
        assert (leads_to("staging"), leads_to("other")) == (day["artifact"], night["artifact"])
    record = registry.find_bundle(store, "banking", str(day["bundle"]))
    assert record is not None
    assert record.signers.keys() == {day["artifact"], night["artifact"]}

    # A pin keeps off the key as well; a person may take it, and a rollback leads to what was led to then.
    channels.roll_back(store, "banking", "staging", record, by="ada", why=None, progress=SilentProgress())
    assert leads_to("staging") == day["artifact"]
    assert not publish(1, "staging")["moved"]
    assert leads_to("staging") == day["artifact"]
    named = promotable.find_named(store, "banking", store.artifact_uri(str(night["artifact"])))
    moved = channels.promote(
        store, "banking", "staging", named, by="ada", why="new key", override=None, progress=SilentProgress()
    )
    assert (moved.moved, leads_to("staging")) == (True, night["artifact"])
    assert moved.channel.arrived.kind is MoveKind.SIGNED_ANEW


def test_a_record_of_format_1_is_read(store: LocalStore, lane: dict[str, Path], keys: Keys, tmp_path: Path) -> None:
    settings = resolve(publish_settings(), SilentProgress())
    facts = promoted(store, publish_lanes(tmp_path / "b", {"cpu-int8": lane}, key=keys), settings)
    ((name, _),) = store.list_documents("registry/banking/bundles/")
    document = store.read(name)
    assert document is not None
    old = json.loads(document.content) | {"format": 1, "earlier": [f"sha256:{'0' * 64}"]}
    assert store.replace(name, manifest.canonical(old), document.version)
    record = registry.find_bundle(store, "banking", str(facts["bundle"]))
    assert record is not None
    assert record.earlier == {f"sha256:{'0' * 64}": None}


@pytest.mark.parametrize("signer", ["nobody", "another"])
def test_an_output_planted_under_publishs_step_key_is_not_let_in(
    store: LocalStore, lane: dict[str, Path], tmp_path: Path, keys: Keys, signer: str
) -> None:
    step = prepared(store, lane)
    intruder = make_keys(tmp_path / "intruder") if signer == "another" else None
    planted = publish_lanes(tmp_path / "planted", {"cpu-int8": lane}, key=intruder)
    artifact = stored(store, planted, "bundle")
    records.adopt_or_store(store, make_record(step.key, {"bundle": artifact}, step="publish"))
    with pytest.raises(InputError) as caught:
        container.run_step(store, step, SilentProgress())
    assert caught.value.exit_code == 2
    told = str(caught.value)
    assert "the output under publish's step key is not let in" in told
    assert ("the bundle is unsigned" if signer == "nobody" else "of another signer") in told
    assert "nothing was promoted" in told
    assert list(store.list_documents("registry/")) == []
    # Nothing is lost: as the message says.
    assert store.delete(f"keys/{step.key.removeprefix('sha256:')}.json")
    done = container.run_step(store, step, SilentProgress())
    assert (done.cached, done.effect["moved"]) == (False, True)
    assert done.record.outputs["bundle"] != artifact


def test_what_was_let_in_without_a_key_is_not_let_in_with_one(
    store: LocalStore, lane: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsigned = publish_lanes(tmp_path / "unsigned", {"cpu-int8": lane})
    before = promoted(store, unsigned, publish_settings())
    monkeypatch.setenv(KEY_VARIABLE, str(make_keys(tmp_path).private))
    with pytest.raises(InputError, match="the bundle is unsigned"):
        promoted(store, unsigned, resolve(publish_settings(channel="production"), SilentProgress()))
    assert registry.show_channel(store, "banking", "production") is None
    assert before["moved"] is True


def test_without_the_key_that_was_resolved_nothing_is_published(
    lane: dict[str, Path], tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = resolve(publish_settings(), SilentProgress())
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(InputError, match=r"is to be signed by sha256:\w+, and MODELMILL_SIGNING_KEY is not set here"):
        publish_lanes(tmp_path / "a", {"cpu-int8": lane}, signer=resolved.signer)
    monkeypatch.setenv(KEY_VARIABLE, str(make_keys(tmp_path / "other").private))
    outputs = {"bundle": (tmp_path, "sha256:" + "0" * 64)}
    with pytest.raises(InputError):
        promote(LocalStore(tmp_path / "store"), outputs, resolved, SilentProgress())


def test_the_key_is_in_no_record_and_no_file(store: LocalStore, lane: dict[str, Path], keys: Keys) -> None:
    container.run_step(store, prepared(store, lane), SilentProgress())
    secret = keys.private.read_text("ascii").splitlines()[1].encode()
    written = [path for path in store.root.rglob("*") if path.is_file()]
    assert written
    assert [path for path in written if secret in path.read_bytes()] == []


def test_digests_are_the_same_with_and_without_a_signature(
    store: LocalStore, lane: dict[str, Path], tmp_path: Path, keys: Keys
) -> None:
    bundles = [publish_lanes(tmp_path / name, {"cpu-int8": lane}, key=key) for name, key in (("a", keys), ("b", None))]
    assert len({read_bundle(path).digest for path in bundles}) == 1
