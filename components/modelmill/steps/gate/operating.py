"""What the gate's paired decision does in the long run: how often it passes or refuses, given the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, xlogy

from modelmill.measuring.noninferiority import drop_bounds

# Outcomes rarer than this, all together, are left out of the sums.
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Rates:
    """Shares of all evaluations of ``rows`` rows."""

    passed: float
    failed: float

    @property
    def inconclusive(self) -> float:
        """What is neither."""
        return 1 - self.passed - self.failed


def exact_rates(rows: int, drop: float, gained: float, max_drop: float, confidence: float) -> Rates:
    """How often the paired decision passes and fails a candidate, by summing over all outcomes.

    Args:
        rows: Independent evaluation rows.
        drop: The true drop, a share.
        gained: The true share of rows that only the candidate gets right; that of lost rows is ``gained + drop``.
        max_drop: Share that may be lost.
        confidence: Of each bound.

    Returns:
        Probabilities under the trinomial distribution of (lost, gained, same), to 1e-9.
    """
    lost = gained + drop
    b = np.arange(_most(rows, lost) + 1)[:, None]
    c = np.arange(_most(rows, gained) + 1)[None, :]
    same = np.maximum(rows - b - c, 0)
    chance = np.exp(
        gammaln(rows + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(same + 1)
        + xlogy(b, lost) + xlogy(c, gained) + xlogy(same, 1 - lost - gained)
    )  # fmt: skip
    chance = np.where(b + c <= rows, chance, 0)
    counted = chance > _NEGLIGIBLE / chance.size
    wide_b, wide_c = np.broadcast_arrays(b, c)
    lower, upper = drop_bounds(wide_b[counted], wide_c[counted], rows, confidence)
    weight = chance[counted]
    return Rates(float(weight[upper <= max_drop].sum()), float(weight[lower > max_drop].sum()))


def simulated_rates(
    rows: int, drop: float, gained: float, max_drop: float, confidence: float, evaluations: int, seed: int = 0
) -> Rates:
    """As `exact_rates`, over ``evaluations`` simulated evaluations."""
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(rows, [gained + drop, gained, 1 - 2 * gained - drop], size=evaluations)
    lower, upper = drop_bounds(counts[:, 0], counts[:, 1], rows, confidence)
    return Rates(float((upper <= max_drop).mean()), float((lower > max_drop).mean()))


def _most(rows: int, share: float) -> int:
    """A count that is exceeded with negligible probability."""
    spread = np.sqrt(rows * share * (1 - share))
    return int(min(rows, np.ceil(rows * share + 7 * spread + 15)))


def drifted(
    rows: int,
    loss: float,
    gained: float,
    max_drop: float,
    reference_drop: float | None,
    confidence: float,
    *,
    nights: int,
    channels: int,
    seed: int = 0,
) -> np.ndarray:
    """How far channels are below their reference after so many nights, each with a candidate a little worse.

    Args:
        rows: Evaluation rows, drawn anew each night and for each bound: the luckiest that small losses can be.
        loss: What each night's candidate truly loses against what is served, a share.
        gained: The true share of rows that only the candidate gets right, against either.
        max_drop: Share that may be lost against what is served.
        reference_drop: Share that may be lost against the reference; None: nobody asks.
        confidence: Of each bound.
        nights: How many candidates each channel sees.
        channels: How many channels are simulated.
        seed: Of the draws.

    Returns:
        float64, shape (channels,): the true drop of what is served in the end, a share.
    """
    generator = np.random.default_rng(seed)
    below = np.zeros(channels)

    def passes(drop: np.ndarray, limit: float) -> np.ndarray:
        shares = np.stack([gained + drop, np.full(channels, gained), 1 - 2 * gained - drop], axis=1)
        counts = generator.multinomial(rows, shares)
        return np.asarray(drop_bounds(counts[:, 0], counts[:, 1], rows, confidence)[1] <= limit)

    for _ in range(nights):
        promoted = passes(np.full(channels, loss), max_drop)
        if reference_drop is not None:
            promoted &= passes(below + loss, reference_drop)
        below += loss * promoted
    return below
