"""Intervals for a paired drop in accuracy, and how many rows would settle it.

Both models answer the same rows. ``lost`` rows are right by the baseline alone, ``gained`` by the candidate alone;
the drop is (lost - gained) / rows. All bounds are one-sided at the confidence they are given: the chance that the true
value lies beyond one of them is at most about 1 - confidence on that side, so that a lower and an upper bound shown
together are a two-sided interval at 2 · confidence - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, betainc, betaincinv, gammaln, ndtr, ndtri, xlogy

FEASIBLE_ROWS = 1_000_000
"""More evaluation rows than anyone labels: beyond it a verdict is called out of reach."""

EXACT_ROWS = 200
"""Up to so many rows a p-value sums over all outcomes: the normal approximation is worst in the far tails that Holm's
correction asks about."""
_RATES = 128
"""Rates of gained rows that the largest sum is sought among."""

# Halving an interval of length 2 sixty times leaves less than a double can tell apart.
_HALVINGS = 60


def score(lost: ArrayLike, gained: ArrayLike, rows: ArrayLike, drop: ArrayLike) -> NDArray[np.float64]:
    """Tango's score statistic of the hypothesis that the true drop is ``drop``; it falls as ``drop`` grows.

    Args:
        lost: Rows that only the baseline gets right; may be fractional. All arguments broadcast.
        gained: Rows that only the candidate gets right.
        rows: Rows compared.
        drop: Hypothetical drop, a share between -1 and 1.

    Returns:
        float64, standard normal where the hypothesis holds and ``rows`` is large.

    Source: T. Tango, Statistics in Medicine 17 (1998) 891–908: the statistic Z and, for the rate of gained rows under
    the hypothesis, its maximum-likelihood estimate as the larger root of A·q² + B·q + C = 0.
    """
    b, c, n, d = np.broadcast_arrays(*(np.asarray(item, np.float64) for item in (lost, gained, rows, drop)))
    linear = -b - c + (2 * n - b + c) * d
    constant = -c * d * (1 - d)
    root = np.sqrt(np.maximum(linear * linear - 8 * n * constant, 0))
    # (root - linear) / 4n cancels where linear > 0; the other form of the same root does not.
    stable = np.where(root + linear > 0, root + linear, 1)
    rate = np.where(linear > 0, -2 * constant / stable, (root - linear) / (4 * n))
    variance = n * (2 * rate + d * (1 - d))
    difference = b - c - n * d
    certain = np.where(difference == 0, 0.0, np.copysign(np.inf, difference))
    return np.where(variance > 0, difference / np.sqrt(np.where(variance > 0, variance, 1)), certain)


def tango_bounds(
    lost: ArrayLike, gained: ArrayLike, rows: ArrayLike, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper bound of the drop by Tango's score interval, each one-sided at ``confidence``.

    Args:
        lost: Rows that only the baseline gets right. Arrays broadcast.
        gained: Rows that only the candidate gets right.
        rows: Rows compared.
        confidence: Of each bound, between 0.5 and 1.

    Returns:
        Two float64 arrays of shares between -1 and 1: the drops at which `score` is ±z.

    Source: Tango (1998), the interval by inversion of the score test.
    """
    b, c, n = np.broadcast_arrays(*(np.asarray(item, np.float64) for item in (lost, gained, rows)))
    z = float(ndtri(confidence))
    seen = (b - c) / n

    inside, outside = seen.copy(), np.ones_like(seen)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        rejected = score(b, c, n, middle) <= -z
        outside = np.where(rejected, middle, outside)
        inside = np.where(rejected, inside, middle)
    upper = outside

    inside, outside = seen.copy(), -np.ones_like(seen)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        rejected = score(b, c, n, middle) >= z
        outside = np.where(rejected, middle, outside)
        inside = np.where(rejected, inside, middle)
    return outside, upper


def drop_bounds(
    lost: ArrayLike, gained: ArrayLike, rows: ArrayLike, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper bound of the drop, each one-sided at ``confidence``: what the gate decides by and shows.

    Tango's bounds, and where all disagreement goes one way, the exact binomial bounds of the share of those rows
    where they are the wider. The score test's normal approximation is at its worst there: with the truth at a drop of
    1 point and no row ever gained, it alone would pass 6.6 % of candidates at 270 rows for a promised 5 %, and refuse
    7.3 % at 200; so bounded it is 5.0 and 5.3 % (README.md of this step).

    Args and Returns: As `tango_bounds`.

    Source: Tango (1998); C. J. Clopper and E. S. Pearson, Biometrika 26 (1934) 404–413.
    """
    b, c, n = np.broadcast_arrays(*(np.asarray(item, np.float64) for item in (lost, gained, rows)))
    lower, upper = tango_bounds(b, c, n, confidence)
    # The count of the disagreeing side, with the drop's sign.
    for only, sign in ((c == 0, 1), (b == 0, -1)):
        least, most = _exact_bounds(b if sign > 0 else c, n, confidence)
        lower = np.where(only, np.minimum(lower, least if sign > 0 else -most), lower)
        upper = np.where(only, np.maximum(upper, most if sign > 0 else -least), upper)
    return lower, upper


def _exact_bounds(
    count: NDArray[np.float64], rows: NDArray[np.float64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Clopper–Pearson by quantiles of the beta distribution; ``count`` may be fractional."""
    tiny = np.finfo(np.float64).tiny
    rest = rows - count
    lower = np.where(count > 0, betaincinv(np.maximum(count, tiny), rest + 1, 1 - confidence), 0.0)
    upper = np.where(rest > 0, betaincinv(count + 1, np.maximum(rest, tiny), confidence), 1.0)
    return lower, upper


def share_bounds(correct: float, rows: int, confidence: float) -> tuple[float, float]:
    """Clopper–Pearson bounds of a share, each one-sided at ``confidence``; exact for any share and any number of rows.

    Args:
        correct: Rows that count; may be fractional.
        rows: All rows, at least 1.
        confidence: Of each bound, between 0.5 and 1.

    Source: Clopper and Pearson (1934).
    """
    lower, upper = _exact_bounds(np.asarray(correct, np.float64), np.asarray(rows, np.float64), confidence)
    return float(lower), float(upper)


def harm_p_value(lost: int, gained: int, rows: int, max_drop: float) -> float:
    """How likely so much is lost where the true drop is ``max_drop`` or less: one-sided, small where harm is shown.

    Up to `EXACT_ROWS` rows it is the largest probability, over the rates of gained rows that the hypothesis allows, of
    an outcome whose score is at least as large; it then holds its level whatever the rates are. Beyond, it is the
    score test's, and the binomial's where that is larger and nothing was gained.

    Args:
        lost: Rows that only the baseline gets right.
        gained: Rows that only the candidate gets right.
        rows: Rows compared, at least 1.
        max_drop: Share that may be lost, between 0 and 1.

    Source: H.-M. Hsueh, J.-P. Liu and J. J. Chen, Biometrics 57 (2001) 478–483, with Tango's score as the statistic.
    """
    seen = float(score(lost, gained, rows, max_drop))
    rough = float(ndtr(-seen))
    if gained == 0 and lost > 0 and max_drop > 0:
        rough = max(rough, float(betainc(lost, rows - lost + 1, max_drop)))
    # A drop within what is allowed shows nothing, whatever the sum.
    if rows > EXACT_ROWS or seen <= 0 or max_drop >= 1:
        return rough
    b, c = np.meshgrid(np.arange(rows + 1), np.arange(rows + 1), indexing="ij")
    possible = b + c <= rows
    b, c = b[possible], c[possible]
    # Scores that are equal on paper differ by rounding.
    extreme = score(b, c, rows, max_drop) >= seen - 1e-9
    b, c = b[extreme], c[extreme]
    same = rows - b - c
    ways = gammaln(rows + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(same + 1)
    # Evenly spaced in the root, since the sum changes fastest where few rows are gained.
    rate = np.linspace(0, np.sqrt((1 - max_drop) / 2), _RATES)[:, None] ** 2
    chance = np.exp(ways + xlogy(b, rate + max_drop) + xlogy(c, rate) + xlogy(same, 1 - max_drop - 2 * rate))
    return min(1.0, float(chance.sum(axis=1).max()))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being several: one at or below α rejects with a familywise error rate of α at most.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65–70.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, so_far = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - rank) * p_values[index]))
        corrected[index] = so_far
    return corrected


def mcnemar(lost: int, gained: int) -> tuple[float, float]:
    """McNemar's test of whether the models differ at all: the exact conditional p-value and its mid-p, two-sided.

    Source: Q. McNemar, Psychometrika 12 (1947) 153–157; the mid-p as M. W. Fagerland, S. Lydersen and P. Laake, BMC
    Medical Research Methodology 13:91 (2013), who find it to keep its level where the exact one is far too careful.
    """
    fewer, both = min(lost, gained), lost + gained
    point = float(np.exp(gammaln(both + 1) - gammaln(fewer + 1) - gammaln(both - fewer + 1) - both * np.log(2)))
    if lost == gained:
        return 1.0, 1 - point / 2
    exact = 2 * float(bdtr(fewer, both, 0.5))
    return exact, exact - point


def rows_to_settle_drop(lost: int, gained: int, rows: int, max_drop: float, confidence: float) -> int | None:
    """How many rows in all would decide whether the drop is within ``max_drop``, at the disagreement seen.

    Args:
        lost: Rows that only the baseline gets right.
        gained: Rows that only the candidate gets right.
        rows: Rows compared so far; the bounds there include ``max_drop``.
        max_drop: Share that may be lost.
        confidence: Of each bound.

    Returns:
        The least number of rows at which, with the same shares of lost and gained rows, one bound clears ``max_drop``;
        None where that is more than `FEASIBLE_ROWS`.
    """

    def decided(total: int) -> bool:
        scale = total / rows
        lower, upper = drop_bounds(lost * scale, gained * scale, total, confidence)
        return bool(upper <= max_drop or lower > max_drop)

    return _least(decided, rows)


def rows_to_settle_share(correct: int, rows: int, least: float, confidence: float) -> int | None:
    """As `rows_to_settle_drop`, for whether a share reaches ``least``."""

    def decided(total: int) -> bool:
        lower, upper = share_bounds(correct * total / rows, total, confidence)
        return lower >= least or upper < least

    return _least(decided, rows)


def _least(decided: Callable[[int], bool], start: int) -> int | None:
    """The least number above ``start`` that is decided, or None up to `FEASIBLE_ROWS`."""
    low, high = start, start
    while not decided(high):
        if high >= FEASIBLE_ROWS:
            return None
        low, high = high, min(2 * high, FEASIBLE_ROWS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
