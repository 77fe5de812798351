"""What every store promises, claim by claim, on each kind of store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelmill.core.errors import CorruptArtifactError, StoreError, UsageError
from modelmill.core.manifest import build, read
from modelmill.core.store import Store
from modelmill.core.stores import open_store
from stored_things import SILENT, contents, key_of, make_directory, put

FILES = {"model.json": b"{}", "graphs/model.onnx": b"\x00onnx" * 1000, "empty": b"", "ünïcode name.txt": b"x"}
NOWHERE = "sha256:" + "0" * 64


def test_an_artifact_comes_back_byte_for_byte_and_read_only(store: Store, tmp_path: Path) -> None:
    digest = put(store, tmp_path / "made", FILES)
    directory = store.get_artifact(digest, SILENT)
    manifest = read(directory)
    assert manifest.digest == digest
    assert contents(directory, manifest) == FILES
    assert store.check_artifact(digest) is None
    assert all(not path.stat().st_mode & 0o222 for path in directory.rglob("*") if path.is_file())
    assert [found for found, _ in store.list_artifacts()] == [digest]


def test_an_artifact_without_files_is_an_artifact(store: Store, tmp_path: Path) -> None:
    digest = put(store, tmp_path / "made", {})
    assert store.check_artifact(digest) is None
    assert [path.name for path in store.get_artifact(digest, SILENT).iterdir()] == ["manifest.json"]


def test_storing_the_same_files_again_changes_nothing_but_the_age(store: Store, tmp_path: Path) -> None:
    first = put(store, tmp_path / "first", FILES)
    [(_, before)] = store.list_artifacts()
    second = put(store, tmp_path / "second", FILES)
    [(found, after)] = store.list_artifacts()
    assert first == second == found
    assert after >= before


def test_a_missing_artifact_is_named(store: Store) -> None:
    assert store.check_artifact(NOWHERE) == "is missing"
    assert store.read_manifest(NOWHERE) is None
    with pytest.raises(CorruptArtifactError, match="is missing") as caught:
        store.get_artifact(NOWHERE, SILENT)
    assert caught.value.digest == NOWHERE
    assert caught.value.exit_code == 5
    store.delete_artifact(NOWHERE)
    assert store.list_artifacts() is not None


def test_files_that_differ_from_their_manifest_are_not_stored(store: Store, tmp_path: Path) -> None:
    made = make_directory(tmp_path / "made", FILES)
    manifest = build(made, "model")
    (made / "graphs/model.onnx").write_bytes(b"\x01onnx" * 1000)
    with pytest.raises(StoreError, match=r"model\.onnx changed while it was stored"):
        store.put_artifact(made, manifest, SILENT)
    (made / "graphs/model.onnx").unlink()
    with pytest.raises(StoreError, match=r"model\.onnx changed while it was stored, or is gone"):
        store.put_artifact(made, manifest, SILENT)
    assert store.check_artifact(manifest.digest) == "is missing"


def test_a_link_is_not_stored(store: Store, tmp_path: Path) -> None:
    made = make_directory(tmp_path / "made", FILES)
    manifest = build(made, "model")
    (made / "model.json").unlink()
    (made / "model.json").symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match="regular files only"):
        store.put_artifact(made, manifest, SILENT)
    assert store.check_artifact(manifest.digest) == "is missing"


def test_a_removed_artifact_is_gone_and_can_be_stored_again(store: Store, tmp_path: Path) -> None:
    digest = put(store, tmp_path / "made", FILES)
    store.delete_artifact(digest)
    assert store.check_artifact(digest) == "is missing"
    assert not store.renew_artifact(digest)
    assert put(store, tmp_path / "again", FILES) == digest
    assert store.check_artifact(digest) is None


def test_only_an_artifact_nobody_renewed_is_retired(store: Store, tmp_path: Path) -> None:
    digest = put(store, tmp_path / "made", FILES)
    assert store.retire_artifact(digest, store.now() - 60) is None
    assert store.renew_artifact(digest)
    assert store.check_artifact(digest) is None
    removed = store.retire_artifact(digest, store.now() + 60)
    assert removed is not None
    assert removed.size >= sum(map(len, FILES.values()))
    assert store.check_artifact(digest) == "is missing"
    assert store.retire_artifact(digest, store.now() + 60) is None


@pytest.mark.parametrize("digest", ["sha256:../../../etc", "sha256:ABC", "", "0" * 64])
def test_a_digest_that_could_lie_anywhere_is_refused(store: Store, digest: str) -> None:
    with pytest.raises(StoreError, match="is no digest"):
        store.get_artifact(digest, SILENT)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "keys/../../x", "artifacts/x", "scratch/x", "x", "keys//x", "keys/./x"]
)
def test_a_document_cannot_leave_its_place(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a document"):
        store.create(name, b"x")


def test_a_document_changes_only_from_the_version_that_was_read(store: Store) -> None:
    name = "registry/banking77/channels.json"
    assert store.read(name) is None
    assert not store.replace(name, b"two", "no-version")
    assert store.create(name, b"one")
    assert not store.create(name, b"other")
    read = store.read(name)
    assert read is not None
    assert read.content == b"one"
    assert store.replace(name, b"two", read.version)
    assert not store.replace(name, b"three", read.version)
    assert not store.delete(name, read.version)
    latest = store.read(name)
    assert latest is not None
    assert latest.content == b"two"
    assert store.delete(name, latest.version)
    assert not store.delete(name)
    assert not store.replace(name, b"four", latest.version)
    assert store.read(name) is None


def test_documents_are_listed_by_prefix_in_order(store: Store) -> None:
    names = ["keys/b.json", "keys/a.json", "runs/1.json", "runs/1.lease", "registry/m/history/2.json"]
    for name in names:
        assert store.create(name, b"{}")
    now = store.now()
    listed = list(store.list_documents("keys/"))
    assert [name for name, _ in listed] == ["keys/a.json", "keys/b.json"]
    assert all(abs(now - changed_at) < 60 for _, changed_at in listed)
    assert [name for name, _ in store.list_documents("keys/b")] == ["keys/b.json"]
    assert [name for name, _ in store.list_documents("registry/")] == ["registry/m/history/2.json"]
    assert list(store.list_documents("recipes/")) == []


def test_one_of_sixteen_racing_creators_wins(store: Store) -> None:
    rivals = [open_store(store.uri) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        for round in range(2):
            for same in (False, True):
                name = f"keys/race-{round}-{same}.json"
                contents = [b"the same" if same else b"%d" % rival for rival in range(16)]
                won = list(pool.map(lambda rival, content, name=name: rival.create(name, content), rivals, contents))
                assert sum(won) == 1
                document = store.read(name)
                assert document is not None
                assert document.content == contents[won.index(True)]


def test_a_counter_under_eight_writers_is_exact(store: Store) -> None:
    name = "registry/counter/count.json"
    store.create(name, b"0")

    def count(_: int) -> None:
        mine = open_store(store.uri)
        done = 0
        while done < 3:
            document = mine.read(name)
            assert document is not None
            done += mine.replace(name, b"%d" % (int(document.content) + 1), document.version)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    document = store.read(name)
    assert document is not None
    assert document.content == b"24"


def test_eight_writers_of_one_artifact_leave_it_whole(store: Store, tmp_path: Path) -> None:
    def write(writer: int) -> str:
        return put(open_store(store.uri), tmp_path / f"made-{writer}", FILES)

    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(write, range(8)))
    [digest] = digests
    assert store.check_artifact(digest) is None


def test_the_next_attempt_finds_what_was_saved_and_nothing_else(store: Store) -> None:
    key = key_of(1)
    with store.open_scratch(key, SILENT) as scratch:
        make_directory(scratch.path / "checkpoint-1", {"state": b"one", "deep/er": b"1"})
        scratch.saved(scratch.path / "checkpoint-1")
        make_directory(scratch.path / "checkpoint-2", {"state": b"two"})
    with store.open_scratch(key, SILENT) as scratch:
        found = {path.relative_to(scratch.path).as_posix() for path in scratch.path.rglob("*") if path.is_file()}
        assert found == {"checkpoint-1/state", "checkpoint-1/deep/er"}
        make_directory(scratch.path / "checkpoint-3", {"state": b"three"})
        scratch.saved(scratch.path / "checkpoint-3" / "state")
        for path in ("state", "deep/er"):
            (scratch.path / "checkpoint-1" / path).unlink()
        (scratch.path / "checkpoint-1" / "deep").rmdir()
        (scratch.path / "checkpoint-1").rmdir()
        make_directory(scratch.path, {"log": b"4"})
        scratch.saved(scratch.path / "log")
    with store.open_scratch(key, SILENT) as scratch:
        found = {path.relative_to(scratch.path).as_posix() for path in scratch.path.rglob("*") if path.is_file()}
        assert found == {"checkpoint-3/state", "log"}
        assert (scratch.path / "checkpoint-3/state").read_bytes() == b"three"
        scratch.clear()
    with store.open_scratch(key, SILENT) as scratch:
        assert list(scratch.path.iterdir()) == []


def test_a_second_attempt_at_the_same_time_gets_an_empty_directory(store: Store) -> None:
    key = key_of(2)
    with store.open_scratch(key, SILENT) as first:
        make_directory(first.path, {"state": b"one"})
        first.saved(first.path / "state")
        with open_store(store.uri).open_scratch(key, SILENT) as second:
            assert second.path != first.path
            assert list(second.path.iterdir()) == []
            make_directory(second.path, {"state": b"two"})
            second.saved(second.path / "state")
        assert (first.path / "state").read_bytes() == b"one"
    with store.open_scratch(key, SILENT) as third:
        assert (third.path / "state").read_bytes() == b"one"


def test_only_paths_of_the_scratch_directory_can_be_saved(store: Store, tmp_path: Path) -> None:
    with store.open_scratch(key_of(3), SILENT) as scratch:
        for path in (tmp_path, scratch.path / "missing", scratch.path / ".." / "x"):
            with pytest.raises(UsageError, match="scratch directory"):
                scratch.saved(path)


def test_old_scratch_is_discarded_and_scratch_in_use_is_not(store: Store) -> None:
    with store.open_scratch(key_of(4), SILENT) as old:
        make_directory(old.path, {"state": b"old"})
        old.saved(old.path / "state")
    with store.open_scratch(key_of(5), SILENT) as held:
        make_directory(held.path, {"state": b"held"})
        held.saved(held.path / "state")
        assert store.discard_scratch(store.now() - 60) == 0
        assert store.discard_scratch(store.now() + 60) == 1
        assert (held.path / "state").read_bytes() == b"held"
    with store.open_scratch(key_of(4), SILENT) as gone:
        assert list(gone.path.iterdir()) == []
