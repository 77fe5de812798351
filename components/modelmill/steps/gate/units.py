"""Two models compared where rows belong together: units of several rows are drawn whole, and rows never by themselves.

Rows of one conversation or one document are not independent: counted one by one they promise more than they know. Any
metric, a share of right rows included, is then bounded by a bootstrap over units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelmill.core.errors import DataError
from modelmill.core.evidence import Interval
from modelmill.core.rows import Row
from modelmill.measuring.noninferiority import drop_bounds, share_bounds
from modelmill.steps.gate.bootstrap import Bootstrap, Floats, Statistic
from modelmill.steps.gate.bootstrapped import Bootstrapped, MetricOf
from modelmill.steps.gate.estimates import Paired, one_sided, rows_at_root

LEAST_UNITS = 200
"""Units below which a bootstrap over them passes too many candidates (README.md of this step)."""


def units_of(column: str, rows: Sequence[Row]) -> list[str]:
    """The unit of each row.

    Raises:
        DataError: A row lacks the column.
    """
    missing = next((row for row in rows if row.get(column) is None), None)
    if missing is not None:
        what = f"units are named by the column {column!r}, which the evaluation row {missing['id']} lacks"
        has = ", ".join(sorted(set(missing) - {"id"}))
        raise DataError(what, where="gate.unit", fix=f"give every evaluation row the column; it has {has}")
    return [str(row[column]) for row in rows]


@dataclass(frozen=True)
class Units:
    """Units that are alike, counted.

    Attributes:
        kinds: float64, shape (profiles, kinds): rows of each kind in a unit of each profile.
        counts: int64, shape (profiles,): units of each profile.
    """

    kinds: Floats
    counts: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str], kind: np.ndarray, kinds: int) -> Units:
        """Units from the name of each row's, and the kind of each row (int, below ``kinds``)."""
        _, unit = np.unique(np.asarray(names, dtype=object).astype(str), return_inverse=True)
        table = np.zeros((int(unit.max()) + 1, kinds))
        np.add.at(table, (unit, kind), 1)
        profiles, counts = np.unique(table, axis=0, return_counts=True)
        return cls(profiles, counts.astype(np.int64))

    @property
    def count(self) -> int:
        """All units."""
        return int(self.counts.sum())


@dataclass(frozen=True)
class ByUnit(Bootstrapped):
    """Any metric, by BCa bounds over units drawn anew.

    A bootstrap takes what was not seen for impossible: where few units disagree, its bounds of the drop are moved out
    to at least the distance of Tango's for units that lose or gain, as large as such units were.

    Attributes:
        metric: The metric's name.
        paired: The same answers counted as right rows.
        units_found: Which rows belong together; their kinds are those of ``values``.
        net: float64, shape (profiles,): rows that a unit of each profile loses, less those that it gains.
        column: What names the units.
        values: The metric of either model on weighted kinds.
        least_units: Units below which it is not judged.
    """

    metric: str
    paired: Paired
    units_found: Units
    net: Floats
    column: str
    values: MetricOf
    least_units: int = LEAST_UNITS

    @property
    def by_unit(self) -> bool:
        """Rows belong together."""
        return True

    @property
    def units(self) -> int:
        """Independent units compared."""
        return self.units_found.count

    def _of(self, statistic: Statistic) -> Bootstrap:
        kinds = self.units_found.kinds
        return Bootstrap.of(lambda units: statistic(units @ kinds), self.units_found.counts)

    @property
    def seen(self) -> str:
        """The drop, and the rows and units on which one model alone is right."""
        return (
            f"{self.drop_points:+.2f} seen: {self.lost:,} lost and {self.gained:,} gained of {self.rows:,} rows in "
            f"{self.units:,} units by {self.column}"
        )

    def method(self, confidence: float) -> str:
        """BCa over units, and what keeps it honest where few of them disagree."""
        return (
            f"Paired non-inferiority of {self.metric} by the bias-corrected and accelerated bootstrap (BCa; B. Efron, "
            f"Journal of the American Statistical Association 82, 1987, 171–185) over units named by {self.column}, "
            "drawn with all their rows and both models' answers (A. C. Davison and D. V. Hinkley, Bootstrap Methods "
            "and their Application, 1997, section 3.8), never closer to the drop seen than Tango's bounds of units "
            f"that lose or gain. {one_sided(confidence)}"
        )

    def drop_bounds(self, confidence: float) -> Interval:
        """Of the drop, in points."""
        lower, upper = (100 * bound for bound in self._drop.bounds(confidence))
        below, above = self._least_reach(confidence)
        return min(lower, self.drop_points - below), max(upper, self.drop_points + above)

    def _least_reach(self, confidence: float) -> Interval:
        """How far the bounds lie from the drop at least, in points.

        A unit more or less that disagrees weighs as those seen do, or loses such a share of a typical one: sizes whose
        root mean square is above their mean make a sum of few of them vary by so much more.
        """
        counts, sizes = self.units_found.counts, self.units_found.kinds.sum(axis=1)
        lost, gained = int(counts[self.net > 0].sum()), int(counts[self.net < 0].sum())
        mean = self.rows / self.units
        typical = float(np.sqrt((sizes**2 * counts).sum() / self.units)) / mean
        each = typical
        if lost + gained:
            weighed = float(np.sqrt((self.net**2 * counts).sum() / (lost + gained))) / mean
            share = float((np.abs(self.net) * counts).sum() / (sizes * counts)[self.net != 0].sum())
            each = max(weighed, share * typical)
        lower, upper = (float(bound) for bound in drop_bounds(lost, gained, self.units, confidence))
        seen = (lost - gained) / self.units
        return 100 * each * (seen - lower), 100 * each * (upper - seen)

    def baseline_bounds(self, confidence: float) -> Interval:
        """Of the baseline's metric."""
        return self._wider(self._baseline, self.paired.baseline_correct, confidence)

    def candidate_bounds(self, confidence: float) -> Interval:
        """Of the candidate's metric."""
        return self._wider(self._candidate, self.paired.candidate_correct, confidence)

    def _wider(self, bootstrap: Bootstrap, correct: int, confidence: float) -> Interval:
        """No closer than right rows by themselves would be: a bootstrap of none that is wrong has no width."""
        lower, upper = bootstrap.bounds(confidence)
        least, most = share_bounds(correct, self.rows, confidence)
        aside = bootstrap.estimate - correct / self.rows
        return min(lower, max(0.0, least + aside)), max(upper, min(1.0, most + aside))

    def rows_to_settle_drop(self, limit: float, confidence: float) -> int | None:
        """As bounds close in with the root of the rows, in units as large as these."""
        return rows_at_root(self.drop_points, self.drop_bounds(confidence), limit, self.rows)

    def rows_to_settle_metric(self, least: float, confidence: float) -> int | None:
        """As bounds close in with the root of the rows, in units as large as these."""
        return rows_at_root(self.candidate, self.candidate_bounds(confidence), least, self.rows)
