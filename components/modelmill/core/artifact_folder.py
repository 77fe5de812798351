"""Artifacts as directories on a local disk: a local store's, and the cache of a remote one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelmill.core import durable
from modelmill.core.errors import CorruptArtifactError, StoreError
from modelmill.core.manifest import MANIFEST, Manifest, canonical, relative_files, safe_name, verify
from modelmill.core.progress import Progress
from modelmill.core.store import Removed, changed, hex_of, manifest_from

_ATTEMPTS = 10
_TICK_SECONDS = 0.02
"""The kernel stamps with the time of its last tick, up to 10 ms ago: before a collector looked at the clock, perhaps.

To write a time of one's own takes the directory's owner, and others renew it, too.
"""


class ArtifactFolder:
    """``artifacts/<hex>/`` below a root, filled by renaming from ``tmp/`` on the same file system.

    An artifact's age is its directory's modification time: a user who may write the directory may renew it, also
    where the files are another user's.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = root / ".lock"

    def path(self, digest: str) -> Path:
        """Where an artifact lies or would lie."""
        return self._root / "artifacts" / hex_of(digest)

    def read_manifest(self, digest: str) -> Manifest | None:
        """The manifest, or None where there is none.

        Raises:
            CorruptArtifactError: It cannot be read, or is another artifact's.
        """
        path = self.path(digest) / MANIFEST
        with durable.told(self._root, "read an artifact"):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return None
        return manifest_from(content, digest, str(path))

    def check(self, digest: str) -> str | None:
        """What is wrong with an artifact, every byte read; None where it is whole."""
        try:
            manifest = self.read_manifest(digest)
        except CorruptArtifactError as error:
            return f"is damaged: {error.what}"
        if manifest is None:
            return "is missing"
        with durable.told(self._root, "read an artifact"):
            if self.path(digest).is_symlink():
                return "is damaged: it is a link"
            try:
                verify(self.path(digest), manifest)
            except StoreError as error:
                return f"is damaged: {error.what}"
            except FileNotFoundError:
                # A collector took it while its bytes were read.
                return "is missing"
        return None

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A new directory beside the artifacts, removed at the end unless it was installed."""
        directory = self._root / "tmp" / durable.token()
        with durable.told(self._root, "store an artifact"):
            directory.mkdir(parents=True)
        try:
            yield directory
        finally:
            durable.remove_tree(directory)

    def put(self, source: Path, manifest: Manifest, progress: Progress) -> None:
        """Copy, verify and install the files of ``source``; nothing is done where the artifact is whole."""
        digest = manifest.digest
        for _ in range(_ATTEMPTS):
            present = self.identity(digest)
            if present is not None and self.check(digest) is None:
                if self.renew(digest):
                    return
                continue
            with self.staging() as staged:
                with (
                    durable.told(self._root, "store an artifact"),
                    progress.bar(f"store {manifest.type}", manifest.size, "bytes") as bar,
                ):
                    found = dict(relative_files(source))
                    for name, entry in manifest.files.items():
                        path = found.get(safe_name(name))
                        if path is None or durable.copy(path, staged / name, bar) != entry:
                            raise changed(source / name)
                if self.install(staged, manifest, present):
                    return
        what = f"the artifact {digest} keeps changing while it is stored"
        raise StoreError(what, where=str(self.path(digest)), fix="run again")

    def identity(self, digest: str) -> int | None:
        """What tells the artifact's present directory from its successor; None where there is none."""
        try:
            return self.path(digest).lstat().st_ino
        except (FileNotFoundError, NotADirectoryError):
            return None

    def install(self, staged: Path, manifest: Manifest, present: int | None) -> bool:
        """Give a staged directory of verified files its manifest and its name.

        Args:
            staged: From `staging`, holding exactly the manifest's files.
            manifest: Of those files.
            present: The `identity` of what was found missing or damaged before.

        Returns:
            False where another writer was faster, so that what lies there must be looked at again.
        """
        final = self.path(manifest.digest)
        with durable.told(self._root, "store an artifact"):
            durable.write(staged / MANIFEST, canonical(manifest.model_dump(mode="json")))
            durable.protect(staged / MANIFEST)
            for directory in (staged, *(path for path in staged.rglob("*") if path.is_dir())):
                durable.sync_directory(directory)
            final.parent.mkdir(exist_ok=True)
            with durable.locked(self._lock):
                if self.identity(manifest.digest) != present:
                    return False
                if present is not None:
                    final.rename(staged.with_name(durable.token()))
                os.utime(staged)
                staged.rename(final)
            durable.sync_directory(final.parent)
        return True

    def renew(self, digest: str) -> bool:
        """Make an artifact young, so that `retire` spares it; False where it is gone."""
        with durable.told(self._root, "renew an artifact"):
            if self.identity(digest) is None:
                return False
            with durable.locked(self._lock):
                try:
                    os.utime(self.path(digest))
                except FileNotFoundError:
                    return False
        return True

    def retire(self, digest: str, older_than: float) -> Removed | None:
        """Remove an artifact unless it was renewed since ``older_than``; None where it was, or where it is gone.

        Looking and taking away happen under the lock that `renew` takes: who renewed keeps it.
        """
        aside = self._root / "tmp" / durable.token()
        with durable.told(self._root, "remove an artifact"):
            if self.identity(digest) is None:
                return None
            aside.parent.mkdir(exist_ok=True)
            with durable.locked(self._lock):
                try:
                    if self.path(digest).lstat().st_mtime + _TICK_SECONDS > older_than:
                        return None
                    self.path(digest).rename(aside)
                except FileNotFoundError:
                    return None
        removed = Removed(1, durable.size_of(aside))
        if aside.is_symlink():
            aside.unlink()
        durable.remove_tree(aside)
        return removed

    def digests(self) -> Iterator[tuple[str, float]]:
        """(digest, time of last change) of all artifacts."""
        with durable.told(self._root, "list artifacts"):
            try:
                found = sorted((self._root / "artifacts").iterdir())
            except FileNotFoundError:
                return
        for path in found:
            try:
                yield f"sha256:{path.name}", path.lstat().st_mtime
            except FileNotFoundError:
                continue

    def discard_leftovers(self, older_than: float) -> Removed:
        """Remove what killed writers left under ``tmp/``."""
        count = size = 0
        with durable.told(self._root, "remove leftovers"):
            for path in (self._root / "tmp").glob("*"):
                if durable.newest(path) <= older_than:
                    size += durable.size_of(path)
                    count += 1
                    if path.is_dir() and not path.is_symlink():
                        durable.remove_tree(path)
                    else:
                        path.unlink(missing_ok=True)
        return Removed(count, size)
