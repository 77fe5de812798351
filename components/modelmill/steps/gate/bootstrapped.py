"""What metrics read from resamples share, whether rows are drawn alone or by unit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from modelmill.steps.gate.bootstrap import Bootstrap, Statistic

if TYPE_CHECKING:
    from modelmill.steps.gate.estimates import Paired

MetricOf = Callable[[str, np.ndarray], np.ndarray]
"""``baseline`` or ``candidate``, and weights of the kinds of rows, to that model's metric on each resample."""


class Bootstrapped(ABC):
    """A metric of both models, and of their difference, each with its resamples, drawn when first asked for.

    Attributes:
        paired: The same answers counted as right rows.
        values: The metric of either model on weighted kinds.
    """

    paired: Paired
    values: MetricOf

    @abstractmethod
    def _of(self, statistic: Statistic) -> Bootstrap:
        """A statistic of weighted kinds with its resamples."""

    @property
    def rows(self) -> int:
        """Rows compared."""
        return self.paired.rows

    @property
    def lost(self) -> int:
        """Rows that only the baseline gets right."""
        return self.paired.lost

    @property
    def gained(self) -> int:
        """Rows that only the candidate gets right."""
        return self.paired.gained

    @cached_property
    def _drop(self) -> Bootstrap:
        return self._of(lambda weights: self.values("baseline", weights) - self.values("candidate", weights))

    @cached_property
    def _baseline(self) -> Bootstrap:
        return self._of(lambda weights: self.values("baseline", weights))

    @cached_property
    def _candidate(self) -> Bootstrap:
        return self._of(lambda weights: self.values("candidate", weights))

    @property
    def baseline(self) -> float:
        """The baseline's metric."""
        return self._baseline.estimate

    @property
    def candidate(self) -> float:
        """The candidate's metric."""
        return self._candidate.estimate

    @property
    def drop_points(self) -> float:
        """Baseline minus candidate, in points."""
        return 100 * self._drop.estimate
