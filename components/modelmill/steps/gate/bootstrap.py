"""BCa bootstrap bounds for metrics that are no share of right rows: macro F1, for one.

A row's answer by both models is one unit: units are drawn whole, so that what the models have in common stays paired.
Rows with the same reference and the same two answers are alike to every metric, so that a resample is a draw of how
often each kind of row occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

RESAMPLES = 10_000
"""Hesterberg (2015, arXiv:1411.5279) asks for so many where a bound decides."""
_CHUNK_VALUES = 1 << 22

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Weights of the kinds of rows, shape (resamples, kinds), to the metric of each resample."""


@dataclass(frozen=True)
class Kinds:
    """Rows that are alike, counted.

    Attributes:
        first: int64: a row of each kind.
        counts: int64: how many rows are of it.
        of_row: int64: the kind of each row.
    """

    first: NDArray[np.int64]
    counts: NDArray[np.int64]
    of_row: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """All rows."""
        return int(self.counts.sum())


def kinds_of(*arrays: np.ndarray) -> Kinds:
    """The kinds of rows, told apart by arrays whose first axis is the row."""
    columns = [np.unique(array.reshape(len(array), -1), axis=0, return_inverse=True)[1].ravel() for array in arrays]
    _, first, of_row, counts = np.unique(
        np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    return Kinds(first.astype(np.int64), counts.astype(np.int64), of_row.ravel().astype(np.int64))


def resampled(statistic: Statistic, counts: NDArray[np.int64], seed: int, resamples: int = RESAMPLES) -> Floats:
    """The statistic on resamples of as many rows, drawn with replacement from a fixed seed."""
    generator = np.random.default_rng(seed)
    rows = int(counts.sum())

    def chunks() -> Iterator[Floats]:
        size = max(1, _CHUNK_VALUES // len(counts))
        for start in range(0, resamples, size):
            drawn = generator.multinomial(rows, counts / rows, size=min(size, resamples - start))
            yield statistic(drawn.astype(np.float64))

    return np.concatenate(list(chunks()))


def acceleration(statistic: Statistic, counts: NDArray[np.int64]) -> float:
    """How fast the statistic's spread changes with its value, by the jackknife.

    Source: B. Efron, Journal of the American Statistical Association 82 (1987) 171–185; the jackknife's form as in
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), eq. 14.15.
    """
    # Leaving out any row of a kind gives the same value.
    left = counts.astype(np.float64) - np.eye(len(counts))
    values = np.concatenate([statistic(part) for part in np.array_split(left, max(1, left.size // _CHUNK_VALUES))])
    away = np.average(values, weights=counts) - values
    spread = float((counts * away**2).sum())
    return float((counts * away**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0


@dataclass(frozen=True)
class Bootstrap:
    """A statistic with its resamples, which bounds at any confidence are read from.

    Attributes:
        estimate: On the rows themselves.
        found: On resamples.
        accelerated: `acceleration`.
    """

    estimate: float
    found: Floats
    accelerated: float

    @classmethod
    def of(
        cls, statistic: Statistic, counts: NDArray[np.int64], seed: int = 0, resamples: int = RESAMPLES
    ) -> Bootstrap:
        """Resample rows of which ``counts`` are of each kind."""
        estimate = float(statistic(counts[None, :].astype(np.float64))[0])
        found = resampled(statistic, counts, seed, resamples)
        return cls(estimate, found, acceleration(statistic, counts))

    def bounds(self, confidence: float) -> tuple[float, float]:
        """`bca_bounds`."""
        return bca_bounds(self.estimate, self.found, self.accelerated, confidence)


def bca_bounds(estimate: float, found: Floats, accelerated: float, confidence: float) -> tuple[float, float]:
    """Lower and upper bound, each one-sided at ``confidence``, bias-corrected and accelerated.

    Args:
        estimate: The statistic on the rows themselves.
        found: The statistic on resamples.
        accelerated: `acceleration`.
        confidence: Of each bound, between 0.5 and 1.

    Source: Efron (1987), section 3; ties count half below, as a statistic of few rows has many.
    """
    below = float((found < estimate).mean() + (found == estimate).mean() / 2)
    edge = 0.5 / len(found)
    bias = float(ndtri(min(max(below, edge), 1 - edge)))
    levels = []
    for z in (float(ndtri(1 - confidence)), float(ndtri(confidence))):
        stretch = 1 - accelerated * (bias + z)
        # Beyond its pole the correction has no meaning: the outermost resample is the bound.
        shift = (bias + z) / stretch if stretch > 0 else np.copysign(np.inf, z)
        levels.append(float(ndtr(bias + shift)))
    lower, upper = np.quantile(found, levels)
    return min(float(lower), estimate), max(float(upper), estimate)
