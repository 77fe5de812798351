"""Timing several models in one process, in turns.

Timings of models that run one after another carry whatever the machine did meanwhile: a neighbour's load, a lower
clock. In rounds, each model's turn lies within moments of every other's, so that what slows one slows all, and their
*ratios* stay. The order inside a round is drawn anew each time, so that no model always follows the same other one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelmill.core.progress import Bar, SilentBar

Call = Callable[[int], object]
"""One timed piece of work; given the number of its round."""

WARM_UP_CALLS = 3
WARM_UP_SECONDS = 1.0
"""Calls to warm up with, and the time after which no further one starts."""
LEAST_ROUNDS = 8
MOST_TIMINGS = 999
SETTLE_BELOW_SECONDS = 0.05
SETTLE_SECONDS = 0.1
SETTLE_CALLS = 50
"""A turn's untimed calls end at whichever comes first."""
TURN_CALLS = 3
"""Timed calls of a turn that began with untimed ones: three cost little beside them."""


@dataclass(frozen=True)
class Rounds:
    """Timings in one process.

    Attributes:
        seconds: Name → float64, shape (timings,): each timed call's duration in order. Entry *i* of all names was
            taken within the same round.
        turn: Timed calls of a turn: so many neighbouring entries were taken one after another.
    """

    seconds: Mapping[str, np.ndarray]
    turn: int = 1

    @property
    def count(self) -> int:
        """Timings of each name."""
        return len(next(iter(self.seconds.values())))

    def milliseconds(self, name: str) -> list[float]:
        """One name's timings in order, rounded to a microsecond."""
        return [round(float(value) * 1e3, 3) for value in self.seconds[name]]

    def percentile_ms(self, name: str, percent: float) -> float:
        """A percentile (0 to 100) of one name's timings in milliseconds, interpolated linearly."""
        return round(float(np.percentile(self.seconds[name], percent)) * 1e3, 4)


def median_ms(processes: Sequence[Rounds], name: str) -> float:
    """One name's median in milliseconds: the geometric mean of the processes' medians, as ratios are combined."""
    return round(float(np.exp(np.mean([np.log(np.median(one.seconds[name])) for one in processes]))) * 1e3, 4)


def pooled_ms(processes: Sequence[Rounds], name: str, percent: float) -> float:
    """A percentile of one name's timings in all processes, in milliseconds: a tail needs all there are."""
    return Rounds({name: np.concatenate([one.seconds[name] for one in processes])}).percentile_ms(name, percent)


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

    Where the fastest call is shorter than 50 ms, a turn starts with untimed calls of the same work for 0.1 s, and three
    calls are timed then. The turn before left another model's weights in the caches, another runtime's threads
    spinning, and this runtime's threads asleep: the kernel wakes two of them on one core and takes a while to part
    them, which a model that serves alone never meets. With one untimed call the middle half of PyTorch's times at
    batch 1 lay between 31 and 58 ms on a quiet machine, alone and with 0.1 s between 31 and 34. One rule for all of a
    cell's models, so that none is favoured.

    Args:
        calls: Name → work; the names' order says nothing.
        seconds: Budget of the rounds; warm-up comes before it. At least ``least`` rounds are taken whatever they
            take, because fewer give no interval.
        seed: Draws the order inside each round.
        bar: Advanced by the budget's seconds.
        least: Rounds to time at least.
        multiple_of: The number of timings is a multiple of this: of the pieces that one pass over texts has.
        clock: Seconds; rises.
    """
    reported = bar or SilentBar()
    settles = min(_warm_up(call, clock) for call in calls.values()) < SETTLE_BELOW_SECONDS
    timed = TURN_CALLS if settles else 1
    order = np.random.default_rng(seed)
    names = sorted(calls)
    taken: dict[str, list[float]] = {name: [] for name in names}
    started = previous = clock()
    number = 0
    while number < MOST_TIMINGS * multiple_of:
        if number >= least * timed and number % multiple_of == 0 and clock() - started >= seconds:
            break
        for index in order.permutation(len(names)):
            call = calls[names[index]]
            if settles:
                _settle(call, number, clock)
            for again in range(timed):
                begun = clock()
                call(number + again)
                taken[names[index]].append(clock() - begun)
        number += timed
        now = clock()
        reported.advance(min(now - started, seconds) - min(previous - started, seconds))
        previous = now
    return Rounds({name: np.asarray(values, dtype=np.float64) for name, values in taken.items()}, timed)


def _settle(call: Call, number: int, clock: Callable[[], float]) -> None:
    begun = clock()
    for _ in range(SETTLE_CALLS):
        call(number)
        if clock() - begun >= SETTLE_SECONDS:
            return


def _warm_up(call: Call, clock: Callable[[], float]) -> float:
    """Seconds of the fastest of a few first calls, which build what a runtime keeps for a shape."""
    durations: list[float] = []
    while len(durations) < WARM_UP_CALLS and sum(durations) < WARM_UP_SECONDS:
        begun = clock()
        call(len(durations))
        durations.append(clock() - begun)
    return min(durations)
