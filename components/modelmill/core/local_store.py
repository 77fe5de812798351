"""A store in a local directory."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from modelmill.core import durable
from modelmill.core.artifact_folder import ArtifactFolder
from modelmill.core.errors import CorruptArtifactError, UsageError
from modelmill.core.manifest import Manifest
from modelmill.core.progress import Progress
from modelmill.core.scratch import LocalScratch, ScratchFolder
from modelmill.core.store import Document, Removed, document_name, hex_of

_RESERVED = ("artifacts", "scratch", "tmp")


class LocalStore:
    """`modelmill.core.store.Store` on a POSIX file system with hard links and flock; made on the first write.

    Args:
        root: The directory. Relative paths start where the process runs.

    Raises:
        UsageError: The directory, or a parent of it, is a file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = str(self.root)
        for path in (self.root, *self.root.parents):
            if path.exists():
                if path.is_dir():
                    break
                what = f"the store {self.root} cannot be a directory: {path} is a file"
                raise UsageError(what, where=str(path), fix="name a directory with --store")
        self._artifacts = ArtifactFolder(self.root)
        self._scratch = ScratchFolder(self.root)
        self._lock = self.root / ".lock"

    def artifact_uri(self, digest: str) -> str:
        """The directory's path."""
        return str(self._artifacts.path(digest))

    def put_artifact(self, directory: Path, manifest: Manifest, progress: Progress) -> None:
        """Store the files of ``directory``; see `Store.put_artifact`."""
        self._artifacts.put(directory, manifest, progress)

    def get_artifact(self, digest: str, progress: Progress) -> Path:
        """The artifact's own directory, all its bytes verified. Its files are read-only."""
        problem = self._artifacts.check(digest)
        if problem is not None:
            what = f"the artifact {digest} {problem}"
            raise CorruptArtifactError(what, digest=digest, where=self.artifact_uri(digest))
        return self._artifacts.path(digest)

    def check_artifact(self, digest: str) -> str | None:
        """What is wrong with an artifact, every byte read, or None."""
        return self._artifacts.check(digest)

    def read_manifest(self, digest: str) -> Manifest | None:
        """The artifact's manifest, or None where it is missing."""
        return self._artifacts.read_manifest(digest)

    def delete_artifact(self, digest: str) -> None:
        """Remove an artifact in one rename, then its bytes."""
        self._artifacts.retire(digest, float("inf"))

    def list_artifacts(self) -> Iterator[tuple[str, float]]:
        """(digest, time of last change or renewal) of all artifacts."""
        return self._artifacts.digests()

    def renew_artifact(self, digest: str) -> bool:
        """Make an artifact young; False where it is gone."""
        return self._artifacts.renew(digest)

    def retire_artifact(self, digest: str, older_than: float) -> Removed | None:
        """Remove an artifact unless it was stored or renewed after ``older_than``."""
        return self._artifacts.retire(digest, older_than)

    def discard_leftovers(self, older_than: float) -> Removed:
        """Remove what killed writers left under ``tmp/``."""
        return self._artifacts.discard_leftovers(older_than)

    def now(self) -> float:
        """This machine's clock."""
        return time.time()

    def read(self, name: str) -> Document | None:
        """The document ``name``, or None."""
        path = self.root / document_name(name)
        with durable.told(self.root, f"read {name}"):
            try:
                content = path.read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                return None
        return Document(content, _version(content))

    def create(self, name: str, content: bytes) -> bool:
        """Write a document that must not exist: link(2) fails where the name is taken."""
        path = self.root / document_name(name)
        with durable.told(self.root, f"write {name}"):
            temporary = self._temporary(content)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.hardlink_to(temporary)
            except FileExistsError:
                if not path.exists():
                    raise
                return False
            finally:
                temporary.unlink()
            durable.sync_directory(path.parent)
        return True

    def replace(self, name: str, content: bytes, version: str) -> bool:
        """Write a document whose version must still be ``version``, under the store's lock."""
        path = self.root / document_name(name)
        with durable.told(self.root, f"write {name}"):
            if not path.is_file():
                return False
            temporary = self._temporary(content)
            try:
                with durable.locked(self._lock):
                    if self._version_of(path) != version:
                        return False
                    temporary.replace(path)
                durable.sync_directory(path.parent)
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def delete(self, name: str, version: str | None = None) -> bool:
        """Remove a document, under the store's lock."""
        path = self.root / document_name(name)
        with durable.told(self.root, f"remove {name}"):
            if not path.is_file():
                return False
            with durable.locked(self._lock):
                present = self._version_of(path)
                if present is None or (version is not None and present != version):
                    return False
                path.unlink()
        return True

    def list_documents(self, prefix: str) -> Iterator[tuple[str, float]]:
        """(name, time of last change) of the documents whose names start with ``prefix``, sorted by name."""
        start = self.root / prefix.rpartition("/")[0]
        with durable.told(self.root, "list documents"):
            found = sorted((path.relative_to(self.root).as_posix(), path) for path in start.rglob("*"))
        for name, path in found:
            if name.startswith(prefix) and "/" in name and name.partition("/")[0] not in _RESERVED:
                try:
                    if path.is_file():
                        yield name, path.lstat().st_mtime
                except FileNotFoundError:
                    continue

    def open_scratch(self, key: str, progress: Progress) -> AbstractContextManager[LocalScratch]:
        """The scratch directory of a step key, in the store itself."""
        return self._scratch.open(hex_of(key))

    def discard_scratch(self, older_than: float) -> int:
        """Remove scratch that nobody holds and nobody touched since ``older_than``."""
        return self._scratch.discard(older_than)

    def _temporary(self, content: bytes) -> Path:
        path = self.root / "tmp" / durable.token()
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write(path, content)
        return path

    def _version_of(self, path: Path) -> str | None:
        try:
            return _version(path.read_bytes())
        except FileNotFoundError:
            return None


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
