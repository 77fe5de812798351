"""Who is timed against whom, and what the timings say of the candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modelmill.core.evidence import Difference, Interval
from modelmill.measuring.ratios import Ratio, Statistic, difference, ratio
from modelmill.measuring.rounds import Call, Rounds

BASELINE, AGAIN, CANDIDATE = "baseline", "baseline again", "candidate"
UNQUANTIZED = ("exported", "optimized")


@dataclass(frozen=True)
class Comparison:
    """The candidate against the baseline and against the fastest unquantized model.

    Attributes:
        speedup: The baseline's time over the candidate's.
        gain: The fastest unquantized model's time over the candidate's.
        unquantized: Which model that is.
        noise: Interval of the baseline's time over its own.
    """

    speedup: Ratio
    gain: Ratio
    unquantized: str
    noise: Interval

    @property
    def speedup_difference(self) -> Difference:
        """Of the candidate from the baseline."""
        return difference(self.speedup.interval, self.noise)

    @property
    def gain_difference(self) -> Difference:
        """Of the candidate from the unquantized model."""
        return difference(self.gain.interval, self.noise)


def with_noise(calls: Mapping[str, Call]) -> dict[str, Call]:
    """The calls, and the baseline's a second time."""
    return {**calls, AGAIN: calls[BASELINE]}


def compare(rounds: Rounds, seed: int, statistic: Statistic = np.median) -> Comparison:
    """Read the rounds of `with_noise` calls."""
    fastest = min(UNQUANTIZED, key=lambda name: float(statistic(rounds.seconds[name])))

    def against(name: str, other: str) -> Ratio:
        return ratio(rounds, name, other, statistic=statistic, seed=seed)

    return Comparison(
        speedup=against(BASELINE, CANDIDATE),
        gain=against(fastest, CANDIDATE),
        unquantized=fastest,
        noise=against(BASELINE, AGAIN).interval,
    )
