"""Who is timed against whom, and what the timings say of the candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelmill.core.evidence import Interval
from modelmill.measuring.ratios import Ratio, Statistic, difference, ratio_across
from modelmill.measuring.rounds import Rounds

BASELINE, AGAIN, CANDIDATE = "baseline", "baseline again", "candidate"
UNQUANTIZED = ("exported", "optimized")
DIVIDED = "divided"
"""The optimized model, its batches divided as the candidate's: no gain of quantizing."""


@dataclass(frozen=True)
class Comparison:
    """The candidate against the baseline and against the fastest of the unquantized models that are timed.

    These are the exported, the optimized and the divided one, in float32; no other that a search may have tried.

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
    def models(self) -> dict[str, str]:
        """What the evidence calls each of the three → the name it was timed by."""
        return {BASELINE: BASELINE, "unquantized": self.unquantized, CANDIDATE: CANDIDATE}

    @property
    def fields(self) -> dict[str, Any]:
        """As the evidence of a cell, of a text and of throughput names them."""
        return {
            "unquantized": self.unquantized,
            "speedup": self.speedup.value,
            "speedup_ci": self.speedup.interval,
            "gain_over_unquantized": self.gain.value,
            "gain_over_unquantized_ci": self.gain.interval,
            "noise_ratio_ci": self.noise,
            "speedup_difference": difference(self.speedup.interval, self.noise),
            "gain_difference": difference(self.gain.interval, self.noise),
        }


def compare(processes: Sequence[Rounds], seed: int, statistic: Statistic = np.median) -> Comparison:
    """Read the rounds of each process, the baseline timed twice in them."""
    names = [name for name in (*UNQUANTIZED, DIVIDED) if name in processes[0].seconds]

    def against(name: str, other: str) -> Ratio:
        return ratio_across(processes, name, other, statistic=statistic, seed=seed)

    def time_of(name: str) -> float:
        return float(np.mean([np.log(statistic(rounds.seconds[name])) for rounds in processes]))

    fastest = min(names, key=time_of)
    return Comparison(
        speedup=against(BASELINE, CANDIDATE),
        gain=against(fastest, CANDIDATE),
        unquantized=fastest,
        noise=against(BASELINE, AGAIN).interval,
    )
