"""Temporary folders that go with who made them: at the latest when the next one starts.

As a container's owner (`modelmill.runners.owned`), a folder's holds the lock of a file for as long as it lives, and the
kernel lets go of it however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "modelmill-"
_OWNER = ".owner"


@contextmanager
def folder(subject: str) -> Iterator[Path]:
    """A temporary folder for as long as the block runs; those that killed processes of this user left are removed.

    Args:
        subject: What it is for: the middle of its name.
    """
    _remove_left()
    # What a process that was ended a moment ago still writes there is for the next start.
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{subject}-", ignore_cleanup_errors=True) as name:
        made = Path(name)
        begun = made / f"{_OWNER}.new"
        with begun.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            # Under this name it is locked from the first moment.
            begun.rename(made / _OWNER)
            yield made


def _remove_left() -> None:
    user = os.getuid()
    with os.scandir(tempfile.gettempdir()) as found:
        named = [item for item in found if item.name.startswith(_PREFIX)]
    for item in named:
        # Locked, it is in use; without the file it is another's. Any of them may go meanwhile, by its owner's hand.
        with contextlib.suppress(OSError):
            if item.stat(follow_symlinks=False).st_uid != user or not item.is_dir(follow_symlinks=False):
                continue
            with (Path(item.path) / _OWNER).open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(item.path, ignore_errors=True)
