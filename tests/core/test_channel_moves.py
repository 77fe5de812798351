"""Channels moved by hand: promotion, rollback, pin, and what is read from older documents."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from modelmill.core import channel_document, channels, promotable, registry
from modelmill.core.errors import StoreError, UsageError
from modelmill.core.gc import collect
from modelmill.core.local_store import LocalStore
from modelmill.core.registry_documents import CHANNEL_FORMAT, BundleRecord, Channel, MoveKind
from modelmill.core.store import Store
from registry_writers import digest, promote
from stored_things import SILENT, put


def registered(store: Store, at: Path, name: str) -> BundleRecord:
    """A bundle whose artifact lies in the store; its files are no bundle's."""
    artifact = put(store, at / name, {"model.onnx": name.encode()})
    return registry.register_bundle(store, "banking", digest(name), artifact, "run")


def published(store: Store, name: str, run: str = "run") -> channels.Moved:
    return channels.publish(store, "banking", "staging", digest(name), run)


def rolled_back(store: Store, to: str) -> channels.Moved:
    record = registry.find_bundle(store, "banking", digest(to))
    assert record is not None
    return channels.roll_back(store, "banking", "staging", record, by="ada", why="errors at night", progress=SILENT)


def shown(store: Store) -> Channel:
    found = registry.show_channel(store, "banking", "staging")
    assert found is not None
    return found


def first_format(bundles: str) -> bytes:
    """A channel's document as the first version wrote it."""
    moves = [
        {"number": n, "bundle": digest(x), "previous": digest(bundles[n - 2]) if n > 1 else None,
         "at": f"2026-01-0{n}T00:00:00+00:00", "run": "r"}
        for n, x in enumerate(bundles, 1)
    ]  # fmt: skip
    named = {"format": 1, "model": "banking", "channel": "staging", "bundle": digest(bundles[-1])}
    return json.dumps({**named, "history": moves}).encode()


@pytest.fixture
def three(store: Store, tmp_path: Path) -> Store:
    """A channel that went over a and b to c."""
    for name in "abc":
        registered(store, tmp_path, name)
        published(store, name)
    return store


def test_a_rollback_pins_and_a_run_does_not_undo_it(three: Store, tmp_path: Path) -> None:
    back = rolled_back(three, "b")
    assert (back.moved, back.channel.bundle, back.previous) == (True, digest("b"), digest("c"))
    registered(three, tmp_path, "d")
    held = published(three, "d", "run-7")
    assert (held.moved, held.channel.bundle) == (False, digest("b"))
    assert held.pinned is not None
    assert (held.pinned.by, held.pinned.why) == ("ada", "errors at night")
    last = shown(three).history[-1]
    assert (last.kind, last.offered, last.run, last.number) == (MoveKind.HELD_BACK, digest("d"), "run-7", 5)
    lifted = channels.unpin(three, "banking", "staging", by="bob", why=None)
    assert (lifted.channel.pin, lifted.channel.bundle) == (None, digest("b"))
    assert published(three, "d").moved
    assert [(move.kind.value, move.by) for move in shown(three).history[3:]] == [
        ("rolled back", "ada"), ("held back", None), ("unpinned", "bob"), ("published", None),
    ]  # fmt: skip


def test_what_a_pin_held_back_once_is_recorded_once(three: Store) -> None:
    rolled_back(three, "a")
    assert published(three, "c").pinned is not None
    before = shown(three)
    assert published(three, "c").pinned is not None
    assert shown(three) == before


def test_a_rollback_a_second_time_changes_nothing_and_the_next_one_goes_further_back(three: Store) -> None:
    assert channels.before_present(shown(three)) == digest("b")
    rolled_back(three, "b")
    assert not rolled_back(three, "b").moved
    assert channels.before_present(shown(three)) == digest("a")
    rolled_back(three, "a")
    assert channels.before_present(shown(three)) is None
    published(three, "c")
    assert channels.before_present(shown(three)) is None
    channels.unpin(three, "banking", "staging", by="ada", why=None)
    published(three, "c")
    assert channels.before_present(shown(three)) == digest("a")


def test_a_rollback_by_name_goes_on_backwards_from_where_that_was_promoted(three: Store) -> None:
    rolled_back(three, "a")
    channels.unpin(three, "banking", "staging", by="ada", why=None)
    published(three, "c")
    rolled_back(three, "b")
    # What was just left, c, is no place to go back to.
    assert channels.before_present(shown(three)) == digest("a")


def test_a_rollback_leads_only_to_what_the_channel_named(three: Store, tmp_path: Path) -> None:
    registered(three, tmp_path, "d")
    with pytest.raises(UsageError, match="never named"):
        rolled_back(three, "d")
    assert shown(three).pin is None


def test_a_rollback_to_a_bundle_whose_files_are_gone_is_refused(three: Store) -> None:
    record = registry.find_bundle(three, "banking", digest("a"))
    assert record is not None
    three.delete_artifact(record.artifact)
    with pytest.raises(StoreError, match="is missing") as caught:
        rolled_back(three, "a")
    assert caught.value.exit_code == 5
    assert shown(three).bundle == digest("c")


def test_a_bundle_is_named_by_its_digest_its_first_digits_or_where_it_lies(three: Store) -> None:
    record = registry.find_bundle(three, "banking", digest("a"))
    assert record is not None
    whole = digest("a")
    for text in (whole, whole.removeprefix("sha256:"), whole[7:19], three.artifact_uri(record.artifact) + "/"):
        assert promotable.find_named(three, "banking", text) == record
    for text in ("", "a", "latest", "0" * 12, "../../etc"):
        with pytest.raises(UsageError, match="no registered bundle"):
            promotable.find_named(three, "banking", text)


def test_a_document_of_the_first_format_is_read_and_goes_on_in_the_latest(local_store: Store, tmp_path: Path) -> None:
    for name in "ab":
        registered(local_store, tmp_path, name)
    local_store.create("registry/banking/channels/staging.json", first_format("ab"))
    assert [move.kind for move in shown(local_store).history] == [MoveKind.PUBLISHED] * 2
    rolled_back(local_store, "a")
    written = local_store.read("registry/banking/channels/staging.json")
    assert written is not None
    assert json.loads(written.content)["format"] == CHANNEL_FORMAT
    assert shown(local_store).pin is not None


def test_a_clock_that_runs_backwards_leaves_the_history_in_order(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The machine's clock cannot be set here.
    times = iter(["2026-03-01T00:00:00+00:00", "1970-01-01T00:00:00+00:00", "2025-01-01T00:00:00+00:00"])
    monkeypatch.setattr(channel_document, "utc_now", lambda: next(times))
    for name in "abc":
        promote(local_store, name)
    found = shown(local_store)
    assert [(move.number, move.bundle) for move in found.history] == [(n, digest(x)) for n, x in enumerate("abc", 1)]
    assert found.history[1].at < found.history[0].at
    assert channels.before_present(found) == digest("b")


def test_gc_keeps_what_channels_name_and_the_last_of_their_histories(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    records = {name: registered(store, tmp_path, name) for name in "abcdef"}
    for name in "abcd":
        published(store, name)
    rolled_back(store, "b")
    published(store, "e")
    time.sleep(0.05)

    def present() -> str:
        return "".join(name for name, record in records.items() if store.check_artifact(record.artifact) is None)

    collect(store, 0, SILENT, 0.0)
    assert present() == "abcdef"
    # The last two: e, which the pin held back, and b, which is named. f was registered and never named.
    collect(store, 0, SILENT, 0.0, history=2)
    assert present() == "bef"
    assert collect(store, 0, SILENT, 0.0, history=2).artifacts == []
    with pytest.raises(StoreError, match="is missing"):
        rolled_back(store, "c")
    assert shown(store).bundle == digest("b")


def test_gc_keeps_what_a_served_bundle_was_judged_on(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    rows = {name: put(store, tmp_path / f"rows-{name}", {"rows.jsonl": name.encode()}) for name in "abc"}
    for name in "ab":
        artifact = put(store, tmp_path / name, {"model.onnx": name.encode()})
        registry.register_bundle(store, "banking", digest(name), artifact, "run", judged_on=[rows[name]])
        published(store, name)
    time.sleep(0.05)
    collect(store, 0, SILENT, 0.0, history=1)
    assert [name for name in "abc" if store.check_artifact(rows[name]) is None] == ["b"]


def referred(store: Store, to: str) -> channels.Moved:
    record = registry.find_bundle(store, "banking", digest(to))
    assert record is not None
    return channels.refer(store, "banking", "staging", record, by="ada", why="the audited one")


def test_a_reference_stays_while_runs_and_people_move_the_channel(three: Store, tmp_path: Path) -> None:
    done = referred(three, "a")
    assert (done.moved, done.channel.bundle, done.channel.reference) == (True, digest("c"), digest("a"))
    assert not referred(three, "a").moved
    last = shown(three).history[-1]
    assert (last.kind, last.by, last.why, last.reference) == (
        MoveKind.REFERENCED, "ada", "the audited one", digest("a"),
    )  # fmt: skip
    assert shown(three).arrived.bundle == digest("c")
    registered(three, tmp_path, "d")
    assert published(three, "d").moved
    rolled_back(three, "b")
    channels.unpin(three, "banking", "staging", by="ada", why=None)
    assert shown(three).reference == digest("a")
    assert channels.before_present(shown(three)) == digest("a")


def test_a_collection_spares_the_reference_however_long_ago_it_was_served(three: Store) -> None:
    referred(three, "a")
    time.sleep(1.1 if three.uri.startswith("s3://") else 0.05)
    collect(three, 0, SILENT, 0.0, history=1)
    kept = [registry.find_bundle(three, "banking", digest(name)) for name in "abc"]
    whole = [record is not None and three.check_artifact(record.artifact) is None for record in kept]
    assert whole == [True, False, True]


def test_a_reference_needs_a_channel_and_a_whole_bundle(store: Store, tmp_path: Path) -> None:
    record = registered(store, tmp_path, "a")
    with pytest.raises(UsageError, match="nothing was promoted to the channel staging"):
        referred(store, "a")
    published(store, "a")
    store.delete_artifact(record.artifact)
    with pytest.raises(StoreError, match="is missing"):
        referred(store, "a")
    assert shown(store).reference is None
