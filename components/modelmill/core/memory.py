"""What a process takes of memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_rss_bytes() -> int:
    """The largest resident set of this process alone, in bytes.

    getrusage's ru_maxrss is not it on Linux: exec keeps the largest value seen before, which in a child started by
    vfork is the parent's (fs/exec.c, setmax_mm_hiwater_rss). VmHWM belongs to the new address space.
    """
    found = _status("VmHWM")
    if found is not None:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def rss_bytes() -> int:
    """The resident set of this process now, in bytes; where the system does not tell, its largest so far."""
    found = _status("VmRSS")
    return peak_rss_bytes() if found is None else found


def _status(field: str) -> int | None:
    try:
        status = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in status if line.startswith(f"{field}:")), None)
