"""What ``modelmill bench`` found: its document with ``--json``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modelmill.core.contract import Closed
from modelmill.core.evidence import Difference, Interval
from modelmill.core.hardware import Hardware


class BenchSubject(Closed):
    """What was timed."""

    name: str
    path: str
    runs_on: str = Field(description="pytorch, or the runtime")
    precision: str
    size_bytes: int
    load_seconds: float = Field(description="from file to the first answer in a fresh process, imports left out")
    first_answer_seconds: float = Field(description="the part of it after loading")
    peak_rss_bytes: int = Field(description="of a fresh process that runs every cell once")


class Against(Closed):
    """One model's time against the reference's."""

    name: str
    speedup: float = Field(description="the reference's time over this one's, geometric mean of the processes'")
    speedup_ci: Interval
    difference: Difference | None = Field(description="from the reference; None: it is the reference")


class BenchRow(Against):
    """One model's calls of one kind; ratios are of medians."""

    ms_p50: float
    ms_p95: float
    ms_p99: float


class BenchCell(Closed):
    """One shape of input."""

    workload: Literal["encoder"] = "encoder"
    batch_size: int
    sequence_length: int
    rounds: int
    noise_ratio_ci: Interval = Field(description="the reference timed against itself")
    rows: list[BenchRow]


class BenchSingles(Closed):
    """Texts at their real lengths, one a call: percentiles are over texts."""

    rounds: int
    noise_ratio_ci: Interval
    rows: list[BenchRow]


class BenchThroughputRow(Against):
    """One model's texts a second; ratios are of means."""

    texts_per_second: float
    texts_per_second_ci: Interval
    cost_per_million: float | None = Field(description="at the price of a core-hour; None: no price was given")
    cost_per_million_ci: Interval | None


class BenchTexts(Closed):
    """Texts at their real lengths in the batch plan that evaluate predicts in; tokenising is not in the time."""

    texts: int
    passes: int
    noise_ratio_ci: Interval
    rows: list[BenchThroughputRow]
    one_at_a_time: BenchSingles


class BenchResult(Closed):
    """All that was timed."""

    format: int = 2
    hardware: Hardware
    hardware_class: str
    packages: dict[str, str]
    threads: int
    processes: int
    against: str = Field(description="the reference's name")
    confidence: float
    method: str
    subjects: list[BenchSubject]
    cells: list[BenchCell]
    texts: BenchTexts | None = None
    core_hour: float | None = Field(None, description="price of one core for an hour")
    notes: list[str]
