"""`manifest.json`: every file of an artifact with its sha256 and size, and the digest over them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import Field

from modelmill.core.contract import JSON, Closed
from modelmill.core.errors import CorruptArtifactError, StoreError
from modelmill.core.progress import Bar

MANIFEST = "manifest.json"
CHUNK = 1 << 20


class FileEntry(Closed):
    """One file of an artifact."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0, description="bytes")


class Manifest(Closed):
    """What an artifact consists of. The digest covers the files alone, so that equal bytes have equal digests."""

    format: int = Field(1, description="version of this document")
    type: str = Field(description="the port type the artifact was made for")
    files: dict[str, FileEntry] = Field(description="POSIX path below the artifact → its entry")
    made_by: dict[str, JSON] = Field(default_factory=dict, description="step, version and key; not in the digest")
    made_from: dict[str, JSON] = Field(default_factory=dict, description="input port → digest; not in the digest")

    @property
    def digest(self) -> str:
        """``sha256:…`` over the sorted file entries."""
        entries = [[path, entry.sha256, entry.size] for path, entry in sorted(self.files.items())]
        return "sha256:" + hashlib.sha256(canonical(entries)).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())


def canonical(document: object) -> bytes:
    """The one JSON form that is hashed: sorted keys, no spaces, UTF-8, no NaN."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hex, read in chunks."""
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def copy(source: Path, target: Path, bar: Bar) -> FileEntry:
    """Copy a file of any size in bounded memory, and say what was copied; the target must not exist.

    The bytes that are hashed are the bytes that are written: a file that changes meanwhile cannot slip through.
    """
    hasher = hashlib.sha256()
    size = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(CHUNK):
            hasher.update(chunk)
            writer.write(chunk)
            size += len(chunk)
            bar.advance(len(chunk))
    return FileEntry(sha256=hasher.hexdigest(), size=size)


def relative_files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Every regular file below ``directory`` as (POSIX path, path), sorted; the manifest itself left out.

    Raises:
        StoreError: A link or a special file lies there: an artifact is made of regular files.
    """
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            what = f"an artifact holds regular files only, and {path.name} is none"
            raise StoreError(what, where=str(path), fix="replace the link by the file it names")
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != MANIFEST:
            yield name, path


def build(directory: Path, type: str) -> Manifest:
    """The manifest of the files that lie in ``directory``."""
    files = {
        name: FileEntry(sha256=sha256_of(path), size=path.stat().st_size) for name, path in relative_files(directory)
    }
    return Manifest(type=type, files=files)


def safe_name(name: str) -> str:
    """``name`` if it stays inside its directory.

    Raises:
        StoreError: It is absolute, empty, or climbs out with ``..``.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        what = f"the path {name!r} leaves its artifact"
        raise StoreError(what, fix="the manifest was not written by modelmill: do not use this artifact")
    return name


def verify(directory: Path, manifest: Manifest) -> None:
    """Check that ``directory`` holds exactly the manifest's files with the manifest's bytes.

    Raises:
        CorruptArtifactError: A file is missing, added or changed; the first one is named.
    """
    found = dict(relative_files(directory))
    for name in sorted(set(found) | set(manifest.files)):
        entry = manifest.files.get(safe_name(name))
        if entry is None:
            what = f"{name} is not in the manifest"
        elif name not in found:
            what = f"{name} is missing"
        elif found[name].stat().st_size != entry.size or sha256_of(found[name]) != entry.sha256:
            what = f"{name} differs from its sha256"
        else:
            continue
        raise CorruptArtifactError(what, digest=manifest.digest, where=str(directory / name))


def read(directory: Path) -> Manifest:
    """The manifest stored in ``directory``."""
    return Manifest.model_validate_json((directory / MANIFEST).read_bytes())


def digest_of(directory: Path, type: str) -> str:
    """The digest of an artifact: what the store verified, or computed where no store gave it."""
    return (read(directory) if (directory / MANIFEST).is_file() else build(directory, type)).digest


def write_json(path: Path, document: object) -> None:
    """Write a JSON document in the form artifacts use: sorted, indented, byte-stable."""
    path.write_text(json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
