from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from modelmill.measuring.rounds import LEAST_ROUNDS, MOST_TIMINGS, interleave


class FakeMachine:
    """A clock that the work itself moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> Callable[[int], None]:
        def call(_: int) -> None:
            self.log.append(name)
            self.now += seconds

        return call


def test_every_model_is_timed_once_a_round_within_the_budget() -> None:
    machine = FakeMachine()
    calls = {"slow": machine.work("slow", 0.4), "fast": machine.work("fast", 0.1)}
    rounds = interleave(calls, seconds=10, seed=0, clock=machine.clock)
    assert rounds.count == 20
    assert rounds.seconds["slow"] == pytest.approx(np.full(20, 0.4))
    assert rounds.seconds["fast"] == pytest.approx(np.full(20, 0.1))


def test_order_inside_a_round_is_drawn_by_the_seed() -> None:
    def orders(seed: int) -> list[tuple[str, ...]]:
        machine = FakeMachine()
        interleave({n: machine.work(n, 0.1) for n in "abc"}, seconds=12, seed=seed, clock=machine.clock)
        timed = machine.log[9:]
        return [tuple(timed[i : i + 3]) for i in range(0, len(timed), 3)]

    assert len(set(orders(0))) == 6
    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert all(sorted(order) == ["a", "b", "c"] for order in orders(0))


def test_a_short_call_settles_untimed_at_the_start_of_its_turn() -> None:
    machine = FakeMachine()
    calls = {"short": machine.work("short", 0.04), "shorter": machine.work("shorter", 0.001)}
    rounds = interleave(calls, seconds=2, seed=0, clock=machine.clock)
    turns = rounds.count / 3
    assert machine.log.count("short") == 3 + (3 + 3) * turns
    assert machine.log.count("shorter") == 3 + (50 + 3) * turns
    assert turns == 8


def test_models_settle_all_or_none() -> None:
    for fastest, calls_of in ((0.03, {"slow": 1 + 3, "fast": 4 + 3}), (0.1, {"slow": 1, "fast": 1})):
        machine = FakeMachine()
        calls = {"slow": machine.work("slow", 0.2), "fast": machine.work("fast", fastest)}
        rounds = interleave(calls, seconds=9, seed=0, clock=machine.clock)
        turns = rounds.count // (3 if fastest < 0.05 else 1)
        assert {name: machine.log.count(name) - 3 for name in calls} == {
            name: count * turns for name, count in calls_of.items()
        }


def test_a_slow_call_is_warmed_up_no_longer_than_it_needs() -> None:
    machine = FakeMachine()
    interleave({"a": machine.work("a", 0.7)}, seconds=1, seed=0, clock=machine.clock)
    assert machine.log.count("a") == 2 + LEAST_ROUNDS


def test_an_expensive_model_gets_the_rounds_an_interval_needs_past_its_budget() -> None:
    machine = FakeMachine()
    assert interleave({"a": machine.work("a", 5.0)}, seconds=1, seed=0, clock=machine.clock).count == LEAST_ROUNDS


def test_a_cheap_model_stops_before_its_samples_swamp_the_document() -> None:
    machine = FakeMachine()
    assert interleave({"a": machine.work("a", 1e-6)}, seconds=60, seed=0, clock=machine.clock).count == MOST_TIMINGS


def test_passes_over_pieces_are_whole() -> None:
    machine = FakeMachine()
    rounds = interleave({"a": machine.work("a", 0.3)}, seconds=4, seed=0, multiple_of=5, clock=machine.clock)
    assert rounds.count == 15


def test_percentiles_are_in_milliseconds() -> None:
    durations = iter([0.1] * 3 + [0.060 + 0.001 * n for n in range(101)])
    machine = FakeMachine()

    def call(_: int) -> None:
        machine.now += next(durations)

    rounds = interleave({"a": call}, seconds=11.0, seed=0, clock=machine.clock)
    assert rounds.count == 101
    assert rounds.percentile_ms("a", 50) == pytest.approx(110)
    assert rounds.percentile_ms("a", 95) == pytest.approx(155)
    assert rounds.milliseconds("a")[:2] == pytest.approx([60, 61])
