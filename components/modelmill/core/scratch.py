"""Scratch directories on a local disk: what a killed attempt leaves to the next, one live attempt at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError

from modelmill.core import durable
from modelmill.core.contract import Closed
from modelmill.core.errors import UsageError
from modelmill.core.manifest import FileEntry, canonical, sha256_of


class Saved(Closed):
    """``saved.json``: what of a scratch directory is complete."""

    format: int = 1
    paths: dict[str, dict[str, FileEntry]] = Field(
        default_factory=dict, description="a saved path → its files, named from the scratch directory"
    )

    def files(self) -> dict[str, FileEntry]:
        """All saved files."""
        return {name: entry for files in self.paths.values() for name, entry in files.items()}

    def with_path(self, work: Path, path: Path) -> Saved:
        """This, with what lies at ``path`` now, and without what was removed since.

        Raises:
            UsageError: ``path`` is not below ``work``, or not there.
        """
        if not path.exists() or work not in path.parents:
            what = f"{path} was reported as saved and is not a file or directory of the scratch directory"
            raise UsageError(what, where=str(work), fix="report paths below the scratch port once they are written")
        found = {
            file.relative_to(work).as_posix(): FileEntry(sha256=sha256_of(file), size=file.stat().st_size)
            for file in _files(path)
        }
        kept = {name: files for name, files in self.paths.items() if (work / name).exists()}
        return Saved(paths={**kept, path.relative_to(work).as_posix(): found})

    def prune(self, work: Path) -> Saved:
        """Remove from ``work`` all that is not saved or not as it was saved; what is left of this."""
        kept = {
            name: files
            for name, files in self.paths.items()
            if all(matches(work / file, entry) for file, entry in files.items())
        }
        left = Saved(paths=kept)
        wanted = left.files()
        for path in sorted(work.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.is_symlink() or path.relative_to(work).as_posix() not in wanted:
                path.unlink()
        return left


class LocalScratch:
    """A locked scratch directory; private where another live process holds the key's."""

    def __init__(self, folder: Path, handle: int, *, private: bool) -> None:
        self.folder = folder
        self.path = folder / "work"
        self.private = private
        self._handle = handle
        self._index = folder / "saved.json"

    def restore(self, index: Saved | None = None) -> Saved:
        """Leave what was saved, remove the rest; ``index`` says what was saved where another place keeps that."""
        with durable.told(self.folder, "open a scratch directory"):
            self.path.mkdir(exist_ok=True)
            left = (index or self._read()).prune(self.path)
            self._write(left)
        return left

    def saved(self, path: Path) -> None:
        """Make ``path`` durable."""
        self.save(path)

    def save(self, path: Path) -> Saved:
        """Make ``path`` durable; all that is saved now."""
        with durable.told(self.folder, "save to a scratch directory"):
            index = self._read().with_path(self.path, path)
            for file in _files(path):
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
                durable.sync_directory(file.parent)
            self._write(index)
        return index

    def clear(self) -> None:
        """Remove what is in it."""
        self._write(Saved())
        durable.remove_tree(self.path)

    def close(self) -> None:
        """Let go of the directory; it is removed where nothing is left in it."""
        if self.private or not any(self.path.glob("*")):
            durable.remove_tree(self.folder)
        os.close(self._handle)

    def _read(self) -> Saved:
        try:
            return Saved.model_validate_json(self._index.read_bytes())
        except (FileNotFoundError, ValidationError):
            return Saved()

    def _write(self, index: Saved) -> None:
        temporary = self.folder / durable.token()
        durable.write(temporary, canonical(index.model_dump(mode="json")))
        temporary.replace(self._index)
        durable.sync_directory(self.folder)


class ScratchFolder:
    """``scratch/<name>/`` below a root, each with its lock, its index and its files in ``work/``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._scratch = root / "scratch"

    @contextmanager
    def open(self, name: str) -> Iterator[LocalScratch]:
        """The scratch directory ``name``, or a new private one while another live process has it."""
        with durable.told(self._root, "open a scratch directory"):
            folder = self._scratch / name
            handle = durable.try_lock(folder / "lock")
            private = handle is None
            if handle is None:
                folder = self._scratch / f"{name}.{durable.token()}"
                handle = durable.try_lock(folder / "lock")
        if handle is None:
            what = f"the new scratch directory {folder} is locked"
            raise UsageError(what, fix="use a store on a file system with locks (flock)")
        scratch = LocalScratch(folder, handle, private=private)
        try:
            scratch.restore()
            yield scratch
        finally:
            scratch.close()

    def discard(self, older_than: float) -> int:
        """Remove directories that nobody holds and nobody touched since; how many."""
        count = 0
        with durable.told(self._root, "remove scratch"):
            for folder in sorted(self._scratch.glob("*")):
                if durable.newest(folder) > older_than:
                    continue
                handle = durable.try_lock(folder / "lock")
                if handle is not None:
                    durable.remove_tree(folder)
                    os.close(handle)
                    count += 1
        return count


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def matches(path: Path, entry: FileEntry) -> bool:
    """Whether a regular file lies at ``path`` with the entry's bytes."""
    return (
        path.is_file()
        and not path.is_symlink()
        and path.stat().st_size == entry.size
        and sha256_of(path) == entry.sha256
    )
