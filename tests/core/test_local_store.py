"""What a local directory does as a store: refusals in words, links, scratch, and nothing made by looking."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from modelmill.core import records
from modelmill.core.errors import CorruptArtifactError, StoreError, UsageError
from modelmill.core.gc import collect
from modelmill.core.manifest import build
from modelmill.core.store import Store
from modelmill.core.stores import open_store
from stored_things import SILENT, key_of, make_directory, put

FILES = {"model.onnx": b"onnx" * 1000, "deep/vocab.txt": b"a b c"}


def test_looking_at_a_store_does_not_make_it(local_store: Store) -> None:
    assert records.find(local_store, key_of(1)) == (None, [])
    assert records.list_runs(local_store) == []
    assert local_store.check_artifact(key_of(1)) == "is missing"
    assert not local_store.renew_artifact(key_of(1))
    assert not local_store.delete("keys/x.json")
    assert not local_store.replace("keys/x.json", b"", "version")
    assert collect(local_store, 1, SILENT).removed_bytes == 0
    assert not Path(local_store.uri).exists()


@pytest.mark.parametrize("below", ["file", "file/store", "file/deep/store"])
def test_a_store_cannot_lie_in_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        open_store(str(tmp_path / below))


def test_a_file_that_comes_in_the_way_later_is_said(local_store: Store, tmp_path: Path) -> None:
    Path(local_store.uri).write_text("x")
    for attempt in (lambda: local_store.create("keys/x.json", b""), lambda: put(local_store, tmp_path / "made", FILES)):
        with pytest.raises(UsageError, match="a file is in the way"):
            attempt()


def test_a_place_where_nobody_may_write_is_said() -> None:
    store = open_store("/sys/modelmill")
    with pytest.raises(StoreError, match=r"cannot write keys/x\.json: .*(no permission|read-only)") as caught:
        store.create("keys/x.json", b"")
    assert caught.value.exit_code == 5
    assert caught.value.fix


def test_a_full_disk_is_said_and_leaves_nothing(local_store: Store, tmp_path: Path) -> None:
    made = make_directory(tmp_path / "made", {"model.onnx": bytes(1 << 20)})
    manifest = build(made, "model")
    with_file_limit(1 << 16, lambda: expect_full(lambda: local_store.put_artifact(made, manifest, SILENT)))
    with_file_limit(1 << 10, lambda: expect_full(lambda: local_store.create("keys/x.json", bytes(1 << 12))))
    assert local_store.check_artifact(manifest.digest) == "is missing"
    assert local_store.read("keys/x.json") is None
    assert [path for path in Path(local_store.uri).rglob("*") if path.is_file() and path.stat().st_size > 1 << 12] == []


def test_a_planted_link_is_refused_and_replaced(local_store: Store, tmp_path: Path) -> None:
    digest = put(local_store, tmp_path / "made", FILES)
    directory = Path(local_store.artifact_uri(digest))
    (directory / "model.onnx").unlink()
    (directory / "model.onnx").symlink_to(tmp_path / "made" / "model.onnx")
    with pytest.raises(CorruptArtifactError, match=r"regular files only, and model\.onnx is none"):
        local_store.get_artifact(digest, SILENT)
    assert put(local_store, tmp_path / "again", FILES) == digest
    moved = directory.with_name("moved")
    directory.rename(moved)
    directory.symlink_to(moved)
    assert local_store.check_artifact(digest) == "is damaged: it is a link"
    assert put(local_store, tmp_path / "more", FILES) == digest
    assert not directory.is_symlink()
    assert local_store.check_artifact(digest) is None


def test_an_added_file_is_found(local_store: Store, tmp_path: Path) -> None:
    digest = put(local_store, tmp_path / "made", FILES)
    make_directory(Path(local_store.artifact_uri(digest)), {"added.py": b"import os"})
    assert local_store.check_artifact(digest) == "is damaged: added.py is not in the manifest"


def test_scratch_changed_after_it_was_saved_is_not_given_to_the_next(local_store: Store) -> None:
    with local_store.open_scratch(key_of(1), SILENT) as scratch:
        for name in ("kept", "torn"):
            make_directory(scratch.path / name, {"state": b"whole"})
            scratch.saved(scratch.path / name)
        (scratch.path / "torn" / "state").write_bytes(b"wh")
    with local_store.open_scratch(key_of(1), SILENT) as scratch:
        assert [path.name for path in scratch.path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    "uri", ["", " ", "http://x/y", "gs://bucket", "file://host/x", "s3://", "s3://B", "s3://b/p?x=1"]
)
def test_a_uri_that_names_no_store_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        open_store(uri)


def test_a_secret_in_a_uri_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        open_store("s3://KEY:very-secret@bucket/prefix")
    assert "very-secret" not in str(caught.value)


def test_a_file_uri_and_a_path_are_the_same_store(tmp_path: Path) -> None:
    assert open_store(f"file://{tmp_path}/a%20b").uri == open_store(f"{tmp_path}/a b").uri == f"{tmp_path}/a b"
    assert open_store(f"file:{tmp_path}/x").uri == f"{tmp_path}/x"


def with_file_limit(limit: int, work: Callable[[], None]) -> None:
    """Let the kernel refuse to write files larger than ``limit`` bytes: a full disk without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def expect_full(work: Callable[[], object]) -> None:
    with pytest.raises(StoreError, match="no space left"):
        work()
