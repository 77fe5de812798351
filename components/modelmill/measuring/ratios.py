"""What interleaved timings say about two models: the ratio, its interval, and whether it is more than noise.

Method: percentile bootstrap over blocks of consecutive rounds. Rounds of one process are not independent (a
neighbour's load lasts many of them), so whole blocks are drawn: the circular block bootstrap of Politis and Romano
(1992, "A circular block-resampling procedure for stationary data", in Exploring the Limits of Bootstrap). A block's
rounds are drawn for both models together, which keeps them paired. With few blocks a percentile interval is too
narrow; its tails are widened as in Hesterberg (2015, arXiv:1411.5279, section 4.2, "expanded percentile"), to what
Student's t asks for that number of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit

from modelmill.core.evidence import Difference, Interval
from modelmill.measuring.rounds import Rounds

BLOCKS = 20
"""Schmeiser (1982, Operations Research 30:556) finds 10 to 30 batches enough: more of them buy little precision and
cost independence."""
RESAMPLES = 4000
_CHUNK_VALUES = 1 << 22

METHOD = (
    "all models in one process, in turns, in an order drawn anew each round; short calls settle 0.1 s and are timed "
    "thrice a turn; ratios of medians (of means for texts a second); two-sided 95 % intervals by the circular block "
    "bootstrap over rounds (Politis and Romano 1992) with expanded percentiles (Hesterberg 2015, arXiv:1411.5279); "
    "noise: the baseline timed against itself"
)

Statistic = Callable[..., np.ndarray]
"""Of an array along ``axis``: numpy.median, or numpy.mean where rounds hold different work."""


class Ratio(NamedTuple):
    """How many times as long one model takes as another."""

    value: float
    interval: Interval


def ratio(
    rounds: Rounds,
    numerator: str,
    denominator: str,
    *,
    confidence: float = 0.95,
    statistic: Statistic = np.median,
    seed: int = 0,
) -> Ratio:
    """The ratio of two models' times (their medians, unless told otherwise) and its two-sided interval.

    Args:
        rounds: At least two.
        numerator: The name whose time stands above: the baseline, for a speed-up.
        denominator: The name whose time stands below.
        confidence: Of the two-sided interval.
        statistic: What of a model's times is compared.
        seed: Draws the resamples.
    """
    above, below = rounds.seconds[numerator], rounds.seconds[denominator]
    value = float(statistic(above) / statistic(below))
    if numerator == denominator or rounds.count < 2:
        return Ratio(value, (value, value))
    found = [statistic(above[index], axis=1) / statistic(below[index], axis=1) for index in _resamples(rounds, seed)]
    return Ratio(value, _interval(found, value, rounds, confidence))


def mean_seconds(rounds: Rounds, name: str, *, confidence: float = 0.95, seed: int = 0) -> Ratio:
    """A model's mean time and its two-sided interval, within these rounds: nothing is paired with it.

    Args:
        rounds: As `ratio`'s.
        name: Whose time.
        confidence: Of the two-sided interval.
        seed: Draws the resamples.
    """
    taken = rounds.seconds[name]
    value = float(taken.mean())
    if rounds.count < 2:
        return Ratio(value, (value, value))
    found = [taken[index].mean(axis=1) for index in _resamples(rounds, seed)]
    return Ratio(value, _interval(found, value, rounds, confidence))


def _block(rounds: Rounds) -> int:
    """Rounds of a block."""
    return rounds.turn * math.ceil(rounds.count / rounds.turn / BLOCKS)


def _resamples(rounds: Rounds, seed: int) -> Iterator[np.ndarray]:
    """Rounds drawn in blocks: int64, shape (resamples, rounds), in chunks of bounded size."""
    length = _block(rounds)
    blocks = math.ceil(rounds.count / length)
    drawn = np.random.default_rng(seed)
    offsets = np.arange(length)
    chunk = max(1, _CHUNK_VALUES // rounds.count)
    for start in range(0, RESAMPLES, chunk):
        count = min(chunk, RESAMPLES - start)
        starts = drawn.integers(0, rounds.count, size=(count, blocks, 1))
        yield ((starts + offsets) % rounds.count).reshape(count, -1)[:, : rounds.count]


def _interval(found: list[np.ndarray], value: float, rounds: Rounds, confidence: float) -> Interval:
    tail = 100 * expanded_tail(math.ceil(rounds.count / _block(rounds)), confidence)
    lower, upper = np.percentile(np.concatenate(found), [tail, 100 - tail])
    return min(float(lower), value), max(float(upper), value)


def expanded_tail(blocks: int, confidence: float) -> float:
    """The share to cut from each tail of the bootstrap distribution of ``blocks`` blocks.

    Source: arXiv:1411.5279, section 4.2: Φ(−√(n/(n−1)) · t), t Student's quantile with n−1 degrees of freedom.
    """
    if blocks < 2:
        return 0.0
    quantile = float(stdtrit(blocks - 1, (1 + confidence) / 2))
    return float(ndtr(-math.sqrt(blocks / (blocks - 1)) * quantile))


def noise_band(noise: Interval) -> Interval:
    """The ratios around 1 that this machine gives a model against itself.

    The interval of the same model timed twice, made symmetric on the logarithm, since which of the two stands above
    says nothing.
    """
    reach = max(abs(math.log(noise[0])), abs(math.log(noise[1])))
    return math.exp(-reach), math.exp(reach)


def widest(intervals: list[Interval]) -> Interval:
    """The interval that holds all of them."""
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def difference(interval: Interval, noise: Interval) -> Difference:
    """Whether a model that is ``interval`` times as fast as another is called faster or slower.

    Args:
        interval: Of the other's time over the model's time.
        noise: Of the same model timed twice. A difference counts only where the whole interval lies past it.
    """
    low, high = noise_band(noise)
    if interval[0] > high:
        return Difference.FASTER
    if interval[1] < low:
        return Difference.SLOWER
    return Difference.WITHIN_NOISE
