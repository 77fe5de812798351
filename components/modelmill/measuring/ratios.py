"""What interleaved timings say about two models: the ratio, its interval, and whether it is more than noise.

Within one process: percentile bootstrap over blocks of consecutive rounds. Rounds of one process are not independent (a
neighbour's load lasts many of them), so whole blocks are drawn: the circular block bootstrap of Politis and Romano
(1992, "A circular block-resampling procedure for stationary data", in Exploring the Limits of Bootstrap). A block's
rounds are drawn for both models together, which keeps them paired. With few blocks a percentile interval is too
narrow; its tails are widened as in Hesterberg (2015, arXiv:1411.5279, section 4.2, "expanded percentile"), to what
Student's t asks for that number of blocks.

Over several processes: where memory came to lie, which cores threads settled on and what the allocator did stay as they
are while a process lives, so that no number of rounds averages them out. The processes are the observations: their
ratios are combined on the logarithm, with Student's interval of their mean (Georges, Buytaert and Eeckhout, 2007,
"Statistically Rigorous Java Performance Evaluation", section 3.2; Kalibera and Jones, 2013, "Rigorous Benchmarking in
Reasonable Time", section 6). Three processes may agree by chance: the interval is never narrower than what resampling
the rounds within each of them gives. A bootstrap that drew processes, too, could not reach past the ones it has: the
mean of three lies outside their range in a quarter of all cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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
    "all models in one process, in turns, in an order drawn anew each round, and the same again in further fresh "
    "processes; short calls settle 0.1 s and are timed thrice a turn; ratios of medians (of means for texts a second), "
    "the geometric mean of the processes'; two-sided 95 % intervals by Student's t over the processes' logarithms "
    "(Georges, Buytaert and Eeckhout 2007; Kalibera and Jones 2013), never narrower than by the circular block "
    "bootstrap over rounds within them (Politis and Romano 1992) with expanded percentiles (Hesterberg 2015, "
    "arXiv:1411.5279); noise: the baseline timed against itself"
)

Statistic = Callable[..., np.ndarray]
"""Of an array along ``axis``: numpy.median, or numpy.mean where rounds hold different work."""
_Logarithm = Callable[[Rounds, np.ndarray], np.ndarray]
"""What is estimated, on the logarithm: of rounds by number, shape (n, rounds), gives shape (n,)."""


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
    """The ratio of two models' times in one process; its interval says nothing of other processes."""
    return ratio_across([rounds], numerator, denominator, confidence=confidence, statistic=statistic, seed=seed)


def ratio_across(
    processes: Sequence[Rounds],
    numerator: str,
    denominator: str,
    *,
    confidence: float = 0.95,
    statistic: Statistic = np.median,
    seed: int = 0,
) -> Ratio:
    """The ratio of two models' times (their medians, unless told otherwise) and its two-sided interval.

    Args:
        processes: The rounds of each process, at least one.
        numerator: The name whose time stands above: the baseline, for a speed-up.
        denominator: The name whose time stands below.
        confidence: Of the two-sided interval.
        statistic: What of a model's times in a process is compared.
        seed: Draws the resamples.
    """
    if numerator == denominator:
        return Ratio(1.0, (1.0, 1.0))

    def logarithm(rounds: Rounds, index: np.ndarray) -> np.ndarray:
        above, below = rounds.seconds[numerator][index], rounds.seconds[denominator][index]
        return np.log(statistic(above, axis=1)) - np.log(statistic(below, axis=1))

    return _across(processes, logarithm, confidence, seed)


def over_workloads(each: Sequence[Ratio]) -> Ratio:
    """The geometric mean of two models' ratios on several workloads, which were timed one after another.

    Source: G. Y. Zou and A. Donner, Statistics in Medicine 27 (2008) 1693–1702: the limits of a sum of independent
    estimates from the estimates' own limits; here of logarithms.
    """
    middles = np.log([one.value for one in each])
    lows, highs = np.log([one.interval for one in each]).T
    middle = float(middles.mean())
    below, above = (float(np.sqrt(((middles - ends) ** 2).sum())) / len(each) for ends in (lows, highs))
    return Ratio(math.exp(middle), (math.exp(middle - below), math.exp(middle + above)))


def mean_seconds(processes: Sequence[Rounds], name: str, *, confidence: float = 0.95, seed: int = 0) -> Ratio:
    """A model's mean time and its two-sided interval, within these processes: nothing is paired with it.

    Args:
        processes: As `ratio_across`'s.
        name: Whose time.
        confidence: Of the two-sided interval.
        seed: Draws the resamples.
    """
    return _across(processes, lambda rounds, index: np.log(rounds.seconds[name][index].mean(axis=1)), confidence, seed)


def _across(processes: Sequence[Rounds], logarithm: _Logarithm, confidence: float, seed: int) -> Ratio:
    each = np.concatenate([logarithm(rounds, np.arange(rounds.count)[None]) for rounds in processes])
    middle = float(each.mean())
    low = high = middle
    if all(rounds.count >= 2 for rounds in processes):
        drawn = [_resampled(rounds, logarithm, seed + number) for number, rounds in enumerate(processes)]
        blocks = min(math.ceil(rounds.count / _block(rounds)) for rounds in processes)
        tail = 100 * expanded_tail(blocks, confidence, len(processes))
        lower, upper = np.percentile(np.mean(drawn, axis=0), [tail, 100 - tail])
        low, high = min(float(lower), middle), max(float(upper), middle)
    if len(processes) > 1:
        quantile = float(stdtrit(len(processes) - 1, (1 + confidence) / 2))
        reach = quantile * float(each.std(ddof=1)) / math.sqrt(len(processes))
        low, high = min(low, middle - reach), max(high, middle + reach)
    return Ratio(math.exp(middle), (math.exp(low), math.exp(high)))


def _block(rounds: Rounds) -> int:
    """Rounds of a block."""
    return rounds.turn * math.ceil(rounds.count / rounds.turn / BLOCKS)


def _resampled(rounds: Rounds, logarithm: _Logarithm, seed: int) -> np.ndarray:
    """What is estimated in resamples of one process's rounds, shape (resamples,)."""
    return np.concatenate([logarithm(rounds, index) for index in _resamples(rounds, seed)])


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


def expanded_tail(blocks: int, confidence: float, processes: int = 1) -> float:
    """The share to cut from each tail of the bootstrap distribution of ``blocks`` blocks in each of some processes.

    Source: arXiv:1411.5279, section 4.2: Φ(−√(n/(n−1)) · t), t Student's quantile with n−1 degrees of freedom for each
    process.
    """
    if blocks < 2:
        return 0.0
    quantile = float(stdtrit(processes * (blocks - 1), (1 + confidence) / 2))
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
