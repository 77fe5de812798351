"""What the search knows of each candidate it tried: ``trials.json``, the journal's lines, and the report's table."""

from __future__ import annotations

import math
from functools import cache

from pydantic import Field

from modelmill.core.contract import Closed
from modelmill.core.evidence import Interval, Tried
from modelmill.core.model import MicroBatching
from modelmill.measuring.noninferiority import drop_bounds
from modelmill.measuring.ratios import Ratio, over_workloads
from modelmill.steps.calibrate_quantize.contract import Bound, Variant

BROKEN = 1.0
"""Of the outputs' scale: what moves by as much is not judged."""


class TimedCell(Closed):
    """One workload: the candidate against the unquantized model of the lane."""

    name: str = Field(description="batch 1, length 128; or: texts")
    ms: float = Field(description="median of a call")
    gain: float = Field(description="the unquantized model's median over this one's")
    gain_ci: Interval = Field(description="two-sided, within one process")


class Timed(Closed):
    """How fast a candidate is."""

    cells: list[TimedCell] = Field(min_length=1)

    @property
    def gain(self) -> float:
        """Over the unquantized model: the geometric mean of the cells, each counting alike."""
        return self._ratio.value

    @property
    def gain_ci(self) -> Interval:
        """The gain's interval: two-sided, within one process."""
        return self._ratio.interval

    @property
    def _ratio(self) -> Ratio:
        return over_workloads([Ratio(cell.gain, cell.gain_ci) for cell in self.cells])


class Screened(Closed):
    """What a candidate is at first sight."""

    size_bytes: int
    deviation: float = Field(description="largest difference of outputs on a few tune rows, over the outputs' scale")
    timed: Timed


class Judged(Closed):
    """A candidate on all tune rows, held against the unquantized model."""

    rows: int
    lost: int = Field(description="rows that only the unquantized model gets right in every batch tried")
    gained: int = Field(description="rows that only the candidate gets right")
    neighbours: int = Field(description="rows tried beside others, alone, and with more padding")
    flips: int = Field(description="of those, predictions that changed")
    moved: float = Field(description="largest change of their outputs, over the outputs' scale")

    @property
    def drop_points(self) -> float:
        """Points of accuracy lost."""
        return 100 * (self.lost - self.gained) / self.rows

    def worst_points(self, confidence: float) -> float:
        """Points that may be lost at most, at a one-sided confidence, by the gate's interval."""
        return _worst_points(self.lost, self.gained, self.rows, confidence)


class Trial(Closed):
    """One candidate, as far as it was looked at."""

    name: str
    variant: Variant
    micro_batching: MicroBatching | None = None
    failure: str | None = Field(None, description="why it could not be tried: what the runtime said, or how it died")
    screened: Screened | None = None
    judged: Judged | None = None
    final: Timed | None = Field(None, description="timed again, longer, beside the other finalists")

    @property
    def timed(self) -> Timed | None:
        """The best knowledge of its speed."""
        return self.final or (self.screened.timed if self.screened else None)

    @property
    def gain(self) -> float:
        """Its gain over the unquantized model; 0 where it was never timed."""
        return self.timed.gain if self.timed else 0.0

    @property
    def gain_ci(self) -> Interval:
        """Two-sided, within one process."""
        return self.timed.gain_ci if self.timed else (0.0, 0.0)

    @property
    def speed(self) -> str:
        """Its gain for people."""
        if self.gain_ci == (1.0, 1.0):
            return "the unquantized model as it is"
        return "{:.2f} times as fast as unquantized ({:.2f} to {:.2f})".format(self.gain, *self.gain_ci)

    def may_be_as_fast_as(self, other: Trial) -> bool:
        """Whether their intervals touch: the clock has not told that it is slower."""
        return self.gain_ci[1] >= other.gain_ci[0]

    @property
    def is_broken(self) -> bool:
        """Whether its outputs are those of another model."""
        return self.screened is not None and self.screened.deviation >= BROKEN


class TrialTable(Closed):
    """``trials.json``: beside the choice, for people and the report."""

    format: int = 1
    threads: int
    bound: Bound
    checkpoint_bytes: int = Field(description="what sizes are held against")
    seconds: float = Field(description="that the search took, killed attempts' trials included")
    reason: str = Field("", description="why the chosen one, for people")
    notes: list[str] = Field(default_factory=list, description="what a reader must know")
    trials: list[Trial]
    chosen: int = Field(description="index of the chosen trial")
    tried: list[Tried] = Field(default_factory=list, description="the trials as a report shows them")

    def rows(self) -> list[Tried]:
        """The trials as a report shows them."""
        rows = []
        for index, trial in enumerate(self.trials):
            judged, screened = trial.judged, trial.screened
            low, high = trial.gain_ci
            refusal = refused_for(trial, self.bound, self.checkpoint_bytes)
            unjudged = "not judged: its outputs move by their whole scale" if trial.is_broken else None
            rows.append(
                Tried(
                    name=trial.name,
                    chosen=index == self.chosen,
                    passes=None if judged is None else refusal is None,
                    failure=trial.failure or (refusal if judged is not None else unjudged),
                    gain=round(trial.gain, 4) if screened else None,
                    gain_ci=(round(low, 4), round(high, 4)) if screened else None,
                    size_bytes=screened.size_bytes if screened else None,
                    deviation=round(screened.deviation, 5) if screened else None,
                    drop_points=round(judged.drop_points, 4) if judged else None,
                    worst_points=round(judged.worst_points(self.bound.confidence), 4) if judged else None,
                    flips=judged.flips if judged else None,
                )
            )
        return rows


def decidable(rows: int, bound: Bound) -> bool:
    """Whether so many rows could show that a model that answers like the unquantized one is within the bound."""
    return _worst_points(0, 0, rows, bound.confidence) <= bound.max_drop_points


def excess_points(judged: Judged, bound: Bound) -> float:
    """Points by which a candidate misses the bound on the drop; 0 or less: it is within.

    With too few rows to decide, what is lost on them is compared, without an interval.
    """
    if decidable(judged.rows, bound):
        return judged.worst_points(bound.confidence) - bound.max_drop_points
    return judged.drop_points - bound.max_drop_points


@cache
def _worst_points(lost: int, gained: int, rows: int, confidence: float) -> float:
    return 100 * float(drop_bounds(lost, gained, rows, confidence)[1])


def judged_otherwise(bound: Bound, primary: str) -> str | None:
    """How the gate will judge otherwise than the search, which counts the rows that are right; None: it does not.

    Args:
        bound: What the search was told of the gate.
        primary: The name of the task's primary metric.
    """
    asked = [
        f"the metric {bound.metric}" if bound.metric not in {None, primary} else "",
        f"whole units ({bound.unit})" if bound.unit else "",
        f"slices ({bound.slices})" if bound.slices else "",
    ]
    told = [words for words in asked if words]
    if not told:
        return None
    return f"the gate judges {' and '.join(told)}, too: the search compared candidates by {primary} of single rows"


def missed(trial: Trial, bound: Bound, checkpoint_bytes: int) -> dict[str, float]:
    """The bounds that a judged candidate misses, in words → by how much, as a share of the bound (of 1 where it is 0).

    Args:
        trial: Screened; what was not judged misses its accuracy without end.
        bound: What it must keep to.
        checkpoint_bytes: What its size is held against.
    """
    if trial.judged is None or trial.screened is None:
        return {"it was not judged": math.inf}
    found = {}
    over = excess_points(trial.judged, bound)
    if over > 0:
        words = f"its accuracy may fall {over + bound.max_drop_points:.2f} points"
        found[words] = over / (bound.max_drop_points or 1.0)
    ratio = trial.screened.size_bytes / checkpoint_bytes
    if bound.max_size_ratio is not None and ratio > bound.max_size_ratio:
        found[f"its size is {ratio:.3f} of the checkpoint's"] = ratio / bound.max_size_ratio - 1
    if bound.max_batch_flips is not None and trial.judged.flips > bound.max_batch_flips:
        words = f"{trial.judged.flips} predictions change with their batch"
        found[words] = (trial.judged.flips - bound.max_batch_flips) / (bound.max_batch_flips or 1)
    return found


def refused_for(trial: Trial, bound: Bound, checkpoint_bytes: int) -> str | None:
    """Why a judged candidate does not pass; None: it does."""
    return "; ".join(missed(trial, bound, checkpoint_bytes)) or None
