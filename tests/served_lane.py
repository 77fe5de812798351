"""A lane in a real Triton, as several tests ask it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TARGET, NAME = "cpu-int8", "banking"


@dataclass(frozen=True)
class Served:
    """A lane in a server that runs."""

    address: str
    lane: Path
