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
    try:
        status = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        status = []
    for line in status:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
