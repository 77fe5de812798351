"""What was changed behind the store's back is found, said, never handed out, and repaired."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from modelmill.core import records
from modelmill.core.errors import CorruptArtifactError, StoreError
from modelmill.core.manifest import FileEntry, Manifest, build, canonical
from modelmill.core.store import Store
from seaweed import Seaweed, client_of
from stored_things import SILENT, contents, key_of, make_record, put

FILES = {"model.onnx": b"onnx" * 1000, "deep/vocab.txt": b"a b c"}
Overwrite = Callable[[str, str, bytes | None], None]


@pytest.fixture
def overwrite(store: Store, request: pytest.FixtureRequest) -> Overwrite:
    """Write (or with None remove) a file of an artifact past modelmill."""

    def on_disk(digest: str, name: str, content: bytes | None) -> None:
        path = Path(store.artifact_uri(digest)) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)

    def in_bucket(digest: str, name: str, content: bytes | None) -> None:
        server: Seaweed = request.getfixturevalue("s3_server")
        key = f"{store.artifact_uri(digest)}/{name}".removeprefix(f"s3://{server.bucket}/")
        client = client_of(server)
        if content is None:
            client.delete_object(Bucket=server.bucket, Key=key)
        else:
            # As a careful forger would: with the metadata of the true file.
            metadata = {"sha256": hashlib.sha256(FILES.get(name, b"")).hexdigest()}
            client.put_object(Bucket=server.bucket, Key=key, Body=content, Metadata=metadata)
        client.close()

    return in_bucket if store.uri.startswith("s3://") else on_disk


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize("size", ["shorter", "same", "missing"])
def test_a_damaged_file_is_found_and_repaired(
    store: Store, overwrite: Overwrite, tmp_path: Path, name: str, size: str
) -> None:
    digest = put(store, tmp_path / "made", FILES)
    records.adopt_or_store(store, make_record(key_of(1), {"model": digest}))
    damage = {"shorter": FILES[name][:-1], "same": b"X" + FILES[name][1:], "missing": None}[size]
    overwrite(digest, name, damage)
    with pytest.raises(CorruptArtifactError, match=Path(name).name):
        store.get_artifact(digest, SILENT)
    problem = store.check_artifact(digest)
    assert problem is not None
    assert problem.startswith(f"is damaged: {name}")
    found, reasons = records.find(store, key_of(1))
    assert found is None
    assert reasons == [f"output 'model' of export {problem}: made again"]
    assert put(store, tmp_path / "again", FILES) == digest
    assert store.check_artifact(digest) is None
    assert contents(store.get_artifact(digest, SILENT), build(tmp_path / "again", "model")) == FILES


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'{"type": "model"}', b'{"type": "model", "files": {}}']
)
def test_a_damaged_manifest_is_found_and_repaired(
    store: Store, overwrite: Overwrite, tmp_path: Path, content: bytes
) -> None:
    digest = put(store, tmp_path / "made", FILES)
    overwrite(digest, "manifest.json", content)
    problem = store.check_artifact(digest)
    assert problem is not None
    assert "manifest.json" in problem
    with pytest.raises(CorruptArtifactError, match=r"manifest\.json"):
        store.get_artifact(digest, SILENT)
    assert put(store, tmp_path / "again", FILES) == digest
    assert store.check_artifact(digest) is None


@pytest.mark.parametrize("name", ["../../outside", "/etc/outside", "a/../../outside", "back\\slash", ""])
def test_a_planted_manifest_cannot_name_files_outside(
    store: Store, overwrite: Overwrite, tmp_path: Path, name: str
) -> None:
    entry = FileEntry(sha256=hashlib.sha256(b"planted").hexdigest(), size=7)
    manifest = Manifest(type="model", files={name: entry})
    overwrite(manifest.digest, "manifest.json", canonical(manifest.model_dump(mode="json")))
    problem = store.check_artifact(manifest.digest)
    assert problem is not None
    assert "leaves its artifact" in problem
    with pytest.raises(CorruptArtifactError, match="leaves its artifact"):
        store.get_artifact(manifest.digest, SILENT)
    assert not list(tmp_path.rglob("outside"))


def test_a_manifest_of_a_newer_modelmill_is_not_taken_for_damage(
    store: Store, overwrite: Overwrite, tmp_path: Path
) -> None:
    digest = put(store, tmp_path / "made", FILES)
    overwrite(digest, "manifest.json", json.dumps({"format": 2, "trees": {}}).encode())
    for attempt in (store.check_artifact, store.read_manifest, lambda at: store.get_artifact(at, SILENT)):
        with pytest.raises(StoreError, match="format 2, written by a newer modelmill"):
            attempt(digest)
