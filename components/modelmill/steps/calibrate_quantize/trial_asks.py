"""What a search asks of the process that tries candidates, and what that answers: lines of JSON."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field

from modelmill.core.contract import Closed
from modelmill.core.evidence import Cell, Interval
from modelmill.core.model import MicroBatching
from modelmill.steps.calibrate_quantize.contract import Variant
from modelmill.steps.calibrate_quantize.trials import Judged, Screened, Timed
from modelmill.targets.base import Runtime


class Job(Closed):
    """What stays the same over a whole search."""

    model: Path = Field(description="the optimized model artifact")
    calibrate: Path
    tune: Path
    task: str
    runtime: Runtime
    threads: int
    cells: list[Cell]
    seed: int
    neighbours: int = Field(64, ge=1, description="tune rows that are tried beside others, alone, and padded")


class Work(StrEnum):
    """Kinds of asks."""

    SCREEN = "screen"
    """Make the one subject, compare its outputs, time it shortly."""
    JUDGE = "judge"
    """Predict all tune rows with the one subject."""
    RANK_PRODUCTS = "rank-products"
    """Quantize each product of the one subject alone, and tell how far the outputs move."""
    TIME = "time"
    """Time all subjects together."""


class Subject(Closed):
    """A model and how it is run."""

    variant: Variant
    micro_batching: MicroBatching | None = None


class Ask(Closed):
    """One line to the process."""

    work: Work
    subjects: list[Subject] = Field(min_length=1)
    seconds: float = Field(0.0, ge=0, description="to time each workload for")
    single_rows: bool = Field(True, description="whether workloads of one row are timed, which dividing leaves alone")


class Answer(Closed):
    """One line from the process."""

    failure: str | None = None
    screened: Screened | None = None
    judged: Judged | None = None
    products: dict[str, float] = Field(default_factory=dict, description="product → deviation if it alone is quantized")
    timed: list[Timed] = Field(default_factory=list, description="in the subjects' order")
    faster: list[list[Interval]] = Field(
        default_factory=list,
        description="[i][j]: how many times as fast subject i is as subject j, over all workloads, in the same rounds",
    )
    seconds: float = Field(0.0, description="that the ask took")
