"""Channels and bundles in the registry, on disk and on S3: races, kills, damage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

import registry_writers
from modelmill.core import channels, registry
from modelmill.core.errors import InputError, StoreError
from modelmill.core.registry_documents import CHANNEL_FORMAT, MoveKind
from modelmill.core.store import Store
from modelmill.core.stores import open_store
from registry_writers import digest, promote
from stored_things import put


def test_a_channel_remembers_where_it_was(store: Store) -> None:
    for name in "abca":
        promote(store, name)
    promote(store, "b", "production")
    shown = registry.show_channel(store, "banking", "staging")
    assert shown is not None
    assert shown.bundle == digest("a")
    assert [move.bundle for move in shown.history] == [digest(name) for name in "abca"]
    assert [move.previous for move in shown.history] == [None, *(digest(name) for name in "abc")]
    assert [move.number for move in shown.history] == [1, 2, 3, 4]
    assert registry.models(store) == ["banking"]
    assert registry.channels(store, "banking") == ["production", "staging"]
    assert sorted(item.bundle for item in registry.bundles(store, "banking")) == sorted(digest(n) for n in "abc")


def test_the_same_bundle_again_is_no_move(store: Store) -> None:
    first = promote(store, "a")
    again = promote(store, "a")
    assert (first.moved, again.moved) == (True, False)
    assert again.channel == first.channel


def test_a_channel_nobody_promoted_to_names_nothing(store: Store) -> None:
    assert registry.show_channel(store, "banking", "staging") is None
    assert registry.models(store) == []
    assert registry.artifacts_in_use(store) == set()


def test_a_channel_never_names_a_bundle_that_is_not_registered(store: Store) -> None:
    with pytest.raises(InputError, match="is not registered"):
        channels.publish(store, "banking", "staging", digest("a"), None)
    assert registry.show_channel(store, "banking", "staging") is None


def test_names_that_could_lie_anywhere_are_refused(store: Store) -> None:
    for name in ("", ".", "..", "a/b", "A", "a\n", "ä", "-x", "x-", "a" * 64):
        with pytest.raises(InputError, match="cannot name a model"):
            registry.show_channel(store, name, "staging")
        with pytest.raises(InputError, match="cannot name a channel"):
            registry.show_channel(store, "banking", name)


def overwrite(store: Store, name: str, content: bytes) -> None:
    before = store.read(name)
    assert before is not None
    assert store.replace(name, content, before.version)


@pytest.mark.parametrize("kind", ["channels/staging", f"bundles/{digest('a').removeprefix('sha256:')}"])
def test_a_document_of_a_newer_format_is_refused_and_kept(store: Store, kind: str) -> None:
    promote(store, "a")
    name = f"registry/banking/{kind}.json"
    before = store.read(name)
    assert before is not None
    newer = json.dumps(
        {**json.loads(before.content), "format": CHANNEL_FORMAT + 1, "pinned_by": "a later version"}
    ).encode()
    overwrite(store, name, newer)
    for act in (
        lambda: channels.publish(store, "banking", "staging", digest("a"), None),
        lambda: registry.artifacts_in_use(store),
    ):
        with pytest.raises(StoreError, match="written by a newer modelmill"):
            act()
    after = store.read(name)
    assert after is not None
    assert after.content == newer


def test_a_damaged_document_is_refused_and_kept(store: Store) -> None:
    promote(store, "a")
    name = "registry/banking/channels/staging.json"
    before = store.read(name)
    assert before is not None
    whole = before.content
    for content in (b"[]", whole[:-20], whole.replace(b'"number":1', b'"number":2')):
        overwrite(store, name, content)
        with pytest.raises(StoreError, match=r"cannot be read|does not lead to") as caught:
            promote(store, "b")
        assert caught.value.exit_code == 5
        after = store.read(name)
        assert after is not None
        assert after.content == content


def run_writers(work: str, uri: str) -> list[object]:
    command = [sys.executable, registry_writers.__file__, work, uri]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout)
    return found


def lose_none(uri: str) -> None:
    assert run_writers("writers", uri) == [0] * 8
    shown = registry.show_channel(open_store(uri), "banking", "staging")
    assert shown is not None
    assert {move.bundle for move in shown.history} == {digest(f"{w}.{n}") for w in range(8) for n in range(10)}
    assert len(shown.history) == 80


def lose_none_to_pins(uri: str, at: Path) -> None:
    store = open_store(uri)
    artifact = put(store, at / "first", {"model.onnx": b"first"})
    registry.register_bundle(store, "banking", digest("first"), artifact, None)
    channels.publish(store, "banking", "staging", digest("first"), None)
    assert run_writers("pinned", uri) == [0] * 9
    shown = registry.show_channel(store, "banking", "staging")
    assert shown is not None
    landed = [move.bundle for move in shown.history[1:] if move.kind is MoveKind.PUBLISHED]
    held = [move.offered for move in shown.history if move.kind is MoveKind.HELD_BACK]
    assert sorted(landed + [str(item) for item in held]) == sorted(
        digest(f"{w}.{n}") for w in range(8) for n in range(10)
    )
    kinds = [move.kind for move in shown.history]
    assert (kinds.count(MoveKind.ROLLED_BACK), kinds.count(MoveKind.UNPINNED)) == (6, 6)
    pinned = False
    for move in shown.history:
        assert (move.kind is MoveKind.HELD_BACK) <= pinned
        assert (move.kind is MoveKind.PUBLISHED) <= (not pinned)
        pinned = move.kind is MoveKind.ROLLED_BACK or (pinned and move.kind is not MoveKind.UNPINNED)


def survive_kills(uri: str) -> None:
    found = cast("list[tuple[int, bool]]", run_writers("killed", uri))
    assert len(found) == registry_writers.KILLS
    assert all(known for _, known in found)
    moves = [count for count, _ in found]
    assert moves == sorted(moves)
    assert moves[-1] >= registry_writers.KILLS
    assert promote(open_store(uri), "next").moved


def test_eight_writers_with_ten_moves_each_lose_none(tmp_path: Path) -> None:
    lose_none(str(tmp_path / "store"))


def test_a_kill_at_any_moment_leaves_the_channel_on_an_old_or_on_a_new_bundle(tmp_path: Path) -> None:
    survive_kills(str(tmp_path / "store"))


def test_each_of_eighty_promotions_lands_or_is_held_back_while_a_person_pins_and_unpins(tmp_path: Path) -> None:
    lose_none_to_pins(str(tmp_path / "store"), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_promotion_lands_or_is_held_back_on_s3(s3_uri: str, tmp_path: Path) -> None:
    lose_none_to_pins(s3_uri, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_writers_lose_none_on_s3(s3_uri: str) -> None:
    lose_none(s3_uri)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_kill_at_any_moment_leaves_the_channel_whole_on_s3(s3_uri: str) -> None:
    survive_kills(s3_uri)
