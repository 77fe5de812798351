"""What a search asks of its processes, and what those answer: lines of JSON."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field

from modelmill.core.contract import Closed
from modelmill.core.evidence import Cell, Interval
from modelmill.core.model import MicroBatching
from modelmill.measuring.timing_asks import Failure
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


class Work(StrEnum):
    """Kinds of asks."""

    SCREEN = "screen"
    """Make the one subject, compare its outputs, time it shortly."""
    JUDGE = "judge"
    """Predict all tune rows with the one subject."""
    LIST_PRODUCTS = "list-products"
    """Name the products that the one subject may keep in float32."""
    COMPARE = "compare"
    """Make the one subject and compare its outputs."""
    TIME = "time"
    """Time all subjects together."""


class Subject(Closed):
    """A model and how it is run."""

    variant: Variant
    micro_batching: MicroBatching | None = None


class Ask(Closed):
    """One line to the process that tries candidates."""

    work: Work
    subjects: list[Subject] = Field(min_length=1)
    seconds: float = Field(0.0, ge=0, description="to time each workload for")
    single_rows: bool = Field(True, description="whether workloads of one row are timed, which dividing leaves alone")


class Answer(Closed):
    """One line from the process."""

    failure: str | None = None
    screened: Screened | None = None
    judged: Judged | None = None
    products: list[str] = Field(default_factory=list, description="names, in the graphs' order")
    deviation: float | None = Field(
        None, description="largest difference of outputs on a few tune rows, over the outputs' scale"
    )
    timed: list[Timed] = Field(default_factory=list, description="in the subjects' order")
    faster: list[list[Interval]] = Field(
        default_factory=list,
        description="[i][j]: how many times as fast subject i is as subject j, over all workloads, in the same rounds",
    )
    seconds: float = Field(0.0, description="that it took whoever asked, starts of the process included")


class Line(Closed):
    """One line from the process: the first says whether it could start, each of the others answers an ask."""

    failure: Failure | None = Field(None, description="what kept it from starting")
    answer: Answer | None = None


class Making(Closed):
    """What a process that makes one variant is told."""

    job: Job
    variant: Variant
    output: Path = Field(description="an empty directory")


class Made(Closed):
    """What it answers."""

    failure: Failure | None = Field(None, description="null: the variant is made")


def words_of(error: Exception) -> str:
    """What a runtime's or a rewriter's own error says, in a line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
