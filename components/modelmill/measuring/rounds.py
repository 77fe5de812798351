"""Timing several models in one process, in turns.

Timings of models that run one after another carry whatever the machine did meanwhile: a neighbour's load, a lower
clock. In rounds, each model's turn lies within moments of every other's, so that what slows one slows all, and their
*ratios* stay. The order inside a round is drawn anew each time, so that no model always follows the same other one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from modelmill.core.progress import Bar, SilentBar

Call = Callable[[int], object]
"""One timed piece of work; given the number of its round."""

WARM_UP_CALLS = 3
LEAST_ROUNDS = 8
MOST_ROUNDS = 1000
SETTLE_BELOW_SECONDS = 0.05


@dataclass(frozen=True)
class Rounds:
    """Timings of one process.

    Attributes:
        seconds: Name → float64, shape (rounds,): each call's duration in the order of rounds. Entry *i* of all names
            was taken within the same round.
    """

    seconds: Mapping[str, np.ndarray]

    @property
    def count(self) -> int:
        """Rounds timed."""
        return len(next(iter(self.seconds.values())))

    def milliseconds(self, name: str) -> list[float]:
        """One name's timings in order, rounded to a microsecond."""
        return [round(float(value) * 1e3, 3) for value in self.seconds[name]]

    def percentile_ms(self, name: str, percent: float) -> float:
        """A percentile (0 to 100) of one name's timings in milliseconds, interpolated linearly."""
        return round(float(np.percentile(self.seconds[name], percent)) * 1e3, 4)


def interleave(
    calls: Mapping[str, Call],
    *,
    seconds: float,
    seed: int,
    bar: Bar | None = None,
    least: int = LEAST_ROUNDS,
    multiple_of: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds:
    """Time every call once a round until the budget is spent.

    Where the fastest call is shorter than 50 ms, every call is made once untimed at the start of its turn: the turn
    before left another model's weights in the caches and another runtime's threads spinning, which a model that
    serves alone never meets. One rule for all of a cell's models, so that none is favoured.

    Args:
        calls: Name → work; the names' order says nothing.
        seconds: Budget of the rounds; warm-up comes before it. At least ``least`` rounds are timed whatever they
            take, because fewer give no interval.
        seed: Draws the order inside each round.
        bar: Advanced by the budget's seconds.
        least: Rounds to time at least.
        multiple_of: The number of rounds is a multiple of this: of the pieces that one pass over texts has.
        clock: Seconds; rises.
    """
    reported = bar or SilentBar()
    settles = min(_warm_up(call, clock) for call in calls.values()) < SETTLE_BELOW_SECONDS
    order = np.random.default_rng(seed)
    names = sorted(calls)
    taken: dict[str, list[float]] = {name: [] for name in names}
    started = previous = clock()
    number = 0
    while number < MOST_ROUNDS * multiple_of:
        if number >= least and number % multiple_of == 0 and clock() - started >= seconds:
            break
        for index in order.permutation(len(names)):
            name = names[index]
            if settles:
                calls[name](number)
            begun = clock()
            calls[name](number)
            taken[name].append(clock() - begun)
        number += 1
        now = clock()
        reported.advance(min(now - started, seconds) - min(previous - started, seconds))
        previous = now
    return Rounds({name: np.asarray(values, dtype=np.float64) for name, values in taken.items()})


def _warm_up(call: Call, clock: Callable[[], float]) -> float:
    """Seconds of the fastest of a few first calls, which build what a runtime keeps for a shape."""
    durations = []
    for number in range(WARM_UP_CALLS):
        begun = clock()
        call(number)
        durations.append(clock() - begun)
    return min(durations)
