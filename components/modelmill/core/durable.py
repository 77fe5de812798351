"""Files that are there whole or not at all, on a local file system, also after a crash."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelmill.core import manifest
from modelmill.core.errors import StoreError, UsageError
from modelmill.core.manifest import FileEntry
from modelmill.core.progress import Bar

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM}


@contextmanager
def told(root: Path, doing: str) -> Iterator[None]:
    """Say in one sentence what the operating system refuses below ``root``.

    Args:
        root: The store's directory, for the message.
        doing: What was tried: ``store an artifact``.

    Raises:
        StoreError: No space, no permission, a read-only file system, a failing disk.
        UsageError: A parent of the store is a file.
    """
    try:
        yield
    except OSError as error:
        where = str(error.filename or root)
        if isinstance(error, NotADirectoryError):
            what = f"the store {root} cannot be a directory: a file is in the way"
            raise UsageError(what, where=where, fix="name a directory with --store") from None
        if error.errno in FULL:
            what, fix = f"cannot {doing}: no space left in the store {root}", "free space, or run modelmill gc"
        elif error.errno in _REFUSED:
            what, fix = f"cannot {doing}: no permission in the store {root}", "let this user write there"
        elif error.errno == errno.EROFS:
            what, fix = f"cannot {doing}: the store {root} is on a read-only file system", "name another --store"
        else:
            reason = error.strerror or type(error).__name__
            what, fix = f"cannot {doing} in the store {root}: {reason}", "run again; if it stays, check the disk"
        raise StoreError(what, where=where, fix=fix) from None


def token() -> str:
    """A name that nobody else uses."""
    return uuid.uuid4().hex


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable; a file's own fsync does not (fsync(2))."""
    _sync(directory, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def copy(source: Path, target: Path, bar: Bar) -> FileEntry:
    """`manifest.copy`, durably and read-only at its target."""
    entry = manifest.copy(source, target, bar)
    _sync(target, os.O_RDONLY)
    protect(target)
    return entry


def protect(path: Path) -> None:
    """Take everybody's right to write a file: an artifact never changes."""
    path.chmod(path.stat().st_mode & 0o555)


def remove_tree(directory: Path) -> None:
    """Remove a directory that others may be removing too."""
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the kernel frees it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def try_lock(path: Path) -> int | None:
    """An open handle that holds the lock at ``path``, or None where another holds it; close it to unlock.

    A lock file that was removed between open and flock guards nothing: then it is opened anew.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:
            pass
        os.close(handle)


def newest(directory: Path) -> float:
    """The time of the last change anywhere below ``directory``, in seconds since the epoch; 0 where it is gone."""
    times = [0.0]
    for path in (directory, *directory.rglob("*")):
        try:
            times.append(path.lstat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times)


def size_of(directory: Path) -> int:
    """Bytes of the files below ``directory``."""
    total = 0
    for path in (directory, *directory.rglob("*")):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if path.is_file() and not path.is_symlink():
            total += status.st_size
    return total
