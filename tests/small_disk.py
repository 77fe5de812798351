"""A disk of its own size: a file system in memory that is mounted, filled up and enlarged."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallDisk:
    """A mounted file system at ``path``."""

    path: Path

    def fill(self, free_bytes: int) -> None:
        """Leave that much space."""
        found = os.statvfs(self.path)
        with (self.path / "filling").open("wb") as stream:
            stream.write(bytes(found.f_bavail * found.f_frsize - free_bytes))

    def make_room(self) -> None:
        """Take the filling away."""
        (self.path / "filling").unlink()


@contextmanager
def small_disk(path: Path, size: str = "8m") -> Iterator[SmallDisk]:
    """A disk at ``path``; a skip, or a failure under MODELMILL_REQUIRE_ALL=1, where nothing can be mounted."""
    path.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        if os.environ.get("MODELMILL_REQUIRE_ALL") == "1":
            pytest.fail(f"a file system cannot be mounted here: {done.stderr}")
        pytest.skip("a file system cannot be mounted here")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
