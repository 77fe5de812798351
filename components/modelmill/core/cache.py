"""Where this machine keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """``MODELMILL_CACHE``, or ``modelmill`` in the user's cache directory (XDG Base Directory Specification)."""
    if given := os.environ.get("MODELMILL_CACHE"):
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "modelmill"
