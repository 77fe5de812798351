"""How two models compare on one metric, with bounds: by rows that are right, or by resampling them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from modelmill.core.evidence import Interval
from modelmill.measuring.noninferiority import (
    FEASIBLE_ROWS,
    drop_bounds,
    rows_to_settle_drop,
    rows_to_settle_share,
    share_bounds,
)
from modelmill.steps.gate.bootstrap import Bootstrap, Kinds, Statistic
from modelmill.steps.gate.bootstrapped import Bootstrapped, MetricOf
from modelmill.steps.gate.words import percent

LEAST_UNITS = 1000
"""Rows that a bootstrap needs: with fewer it passes too many candidates (README.md of this step)."""


class Compared(Protocol):
    """Two models on the same rows, by one metric. Every bound is one-sided at the confidence it is given."""

    @property
    def metric(self) -> str:
        """The metric's name."""

    @property
    def rows(self) -> int:
        """Rows compared."""

    @property
    def by_unit(self) -> bool:
        """Whether rows belong together in units."""

    @property
    def units(self) -> int:
        """Independent units compared: rows, or what rows belong to."""

    @property
    def least_units(self) -> int:
        """Units below which the bounds do not hold."""

    @property
    def baseline(self) -> float:
        """The baseline's metric."""

    @property
    def candidate(self) -> float:
        """The candidate's metric."""

    @property
    def drop_points(self) -> float:
        """Baseline minus candidate, in points."""

    @property
    def lost(self) -> int:
        """Rows that only the baseline gets right."""

    @property
    def gained(self) -> int:
        """Rows that only the candidate gets right."""

    @property
    def seen(self) -> str:
        """What was counted, in words."""

    def method(self, confidence: float) -> str:
        """The method in words, with its sources and what its bounds mean."""

    def drop_bounds(self, confidence: float) -> Interval:
        """Of the drop, in points."""

    def baseline_bounds(self, confidence: float) -> Interval:
        """Of the baseline's metric."""

    def candidate_bounds(self, confidence: float) -> Interval:
        """Of the candidate's metric."""

    def rows_to_settle_drop(self, limit: float, confidence: float) -> int | None:
        """Rows in all at which one bound of the drop would clear ``limit`` points; None: more than feasible."""

    def rows_to_settle_metric(self, least: float, confidence: float) -> int | None:
        """The same for whether the candidate's metric reaches ``least``."""


@dataclass(frozen=True)
class Paired:
    """A metric that is the share of right rows.

    Attributes:
        metric: Name of the share that is judged: ``accuracy``.
        rows: Rows compared.
        lost: Rows that only the baseline gets right.
        gained: Rows that only the candidate gets right.
        candidate_correct: Rows that the candidate gets right.
    """

    metric: str
    rows: int
    lost: int
    gained: int
    candidate_correct: int

    @property
    def by_unit(self) -> bool:
        """Each row stands for itself."""
        return False

    @property
    def units(self) -> int:
        """Each row is one."""
        return self.rows

    @property
    def least_units(self) -> int:
        """The bounds hold for any number."""
        return 1

    @property
    def baseline_correct(self) -> int:
        """Rows that the baseline gets right."""
        return self.candidate_correct + self.lost - self.gained

    @property
    def baseline(self) -> float:
        """The baseline's share."""
        return self.baseline_correct / self.rows

    @property
    def candidate(self) -> float:
        """The candidate's share."""
        return self.candidate_correct / self.rows

    @property
    def drop_points(self) -> float:
        """Baseline minus candidate, in points."""
        return 100 * (self.lost - self.gained) / self.rows

    @property
    def seen(self) -> str:
        """The rows on which one model alone is right."""
        return f"{self.drop_points:+.2f} seen: {self.lost:,} lost and {self.gained:,} gained of {self.rows:,} rows"

    def method(self, confidence: float) -> str:
        """Tango's interval and its one-way exception."""
        return (
            "Paired non-inferiority by Tango's score interval for the difference of paired proportions (Statistics in "
            "Medicine 17, 1998, 891–908), widened to the exact binomial bounds (Clopper and Pearson, 1934) where all "
            f"disagreement goes one way. {one_sided(confidence)} Intervals of a single share are Clopper–Pearson's, at "
            "the same confidence."
        )

    def drop_bounds(self, confidence: float) -> Interval:
        """Of the drop, in points."""
        lower, upper = drop_bounds(self.lost, self.gained, self.rows, confidence)
        return 100 * float(lower), 100 * float(upper)

    def baseline_bounds(self, confidence: float) -> Interval:
        """Of the baseline's share."""
        return share_bounds(self.baseline_correct, self.rows, confidence)

    def candidate_bounds(self, confidence: float) -> Interval:
        """Of the candidate's share."""
        return share_bounds(self.candidate_correct, self.rows, confidence)

    def rows_to_settle_drop(self, limit: float, confidence: float) -> int | None:
        """At the rates of lost and gained rows seen."""
        return rows_to_settle_drop(self.lost, self.gained, self.rows, limit / 100, confidence)

    def rows_to_settle_metric(self, least: float, confidence: float) -> int | None:
        """At the share seen."""
        return rows_to_settle_share(self.candidate_correct, self.rows, least, confidence)


@dataclass(frozen=True)
class Resampled(Bootstrapped):
    """A metric that is no share of rows: BCa bounds over rows drawn anew, never closer than those of right rows.

    A bootstrap takes what was not seen for impossible: where few rows disagree, it alone passes most candidates at the
    margin. The bounds of the drop are therefore at least as far from the drop as `Paired`'s are from the share's.

    Attributes:
        metric: The metric's name.
        paired: The same answers counted as right rows.
        kinds: The rows, told apart by reference and both answers.
        values: The metric of either model on weighted kinds.
    """

    metric: str
    paired: Paired
    kinds: Kinds
    values: MetricOf

    @property
    def by_unit(self) -> bool:
        """Each row stands for itself."""
        return False

    @property
    def units(self) -> int:
        """Each row is one."""
        return self.paired.rows

    @property
    def least_units(self) -> int:
        """Rows that a bootstrap needs."""
        return LEAST_UNITS

    def _of(self, statistic: Statistic) -> Bootstrap:
        return Bootstrap.of(statistic, self.kinds.counts)

    @property
    def seen(self) -> str:
        """The metric before and after, and the rows on which one model alone is right."""
        return (
            f"{self.drop_points:+.2f} seen, {self.baseline:.4f} to {self.candidate:.4f}; {self.paired.lost:,} rows "
            f"lost and {self.paired.gained:,} gained of {self.rows:,}"
        )

    def method(self, confidence: float) -> str:
        """BCa, and what keeps it honest where few rows disagree."""
        return (
            f"Paired non-inferiority of {self.metric} by the bias-corrected and accelerated bootstrap (BCa; B. Efron, "
            "Journal of the American Statistical Association 82, 1987, 171–185) over rows drawn whole, both models' "
            "answers together, never closer to the drop seen than Tango's bounds of right rows are to theirs: a "
            f"bootstrap takes what was not seen for impossible. {one_sided(confidence)} Intervals of one model alone "
            "are BCa's, at the same confidence."
        )

    def drop_bounds(self, confidence: float) -> Interval:
        """Of the drop, in points."""
        lower, upper = (100 * bound for bound in self._drop.bounds(confidence))
        least, most = self.paired.drop_bounds(confidence)
        aside = self.drop_points - self.paired.drop_points
        return min(lower, least + aside), max(upper, most + aside)

    def baseline_bounds(self, confidence: float) -> Interval:
        """Of the baseline's metric."""
        return self._baseline.bounds(confidence)

    def candidate_bounds(self, confidence: float) -> Interval:
        """Of the candidate's metric."""
        return self._candidate.bounds(confidence)

    def rows_to_settle_drop(self, limit: float, confidence: float) -> int | None:
        """As bounds close in with the root of the rows."""
        return rows_at_root(self.drop_points, self.drop_bounds(confidence), limit, self.rows)

    def rows_to_settle_metric(self, least: float, confidence: float) -> int | None:
        """As bounds close in with the root of the rows."""
        return rows_at_root(self.candidate, self.candidate_bounds(confidence), least, self.rows)


def rows_at_root(estimate: float, bounds: Interval, limit: float, rows: int) -> int | None:
    """Rows in all at which the nearer bound would clear a limit, if it closes in with the root of the rows."""
    reach = bounds[1] - estimate if estimate < limit else estimate - bounds[0]
    if estimate == limit or rows * (reach / (limit - estimate)) ** 2 > FEASIBLE_ROWS:
        return None
    return max(rows + 1, math.ceil(rows * (reach / (limit - estimate)) ** 2))


def one_sided(confidence: float) -> str:
    """What a method's bounds mean, in words."""
    return (
        f"Each bound is one-sided at {percent(confidence)} confidence and decides by itself; the interval they make is "
        f"two-sided at {percent(2 * confidence - 1)}."
    )
