from __future__ import annotations

import time

import numpy as np
import pytest

from modelmill.core.evidence import Difference
from modelmill.measuring import ratios
from modelmill.measuring.ratios import (
    Ratio,
    difference,
    expanded_tail,
    mean_seconds,
    noise_band,
    over_workloads,
    ratio,
    ratio_across,
)
from modelmill.measuring.rounds import Rounds, interleave

TRIALS = 100


def wandering(drawn: np.random.Generator, count: int, keeps: float, spread: float) -> np.ndarray:
    """An AR(1) walk: a machine whose load lasts."""
    steps = drawn.normal(0, spread * np.sqrt(1 - keeps**2), count)
    walk = np.empty(count)
    walk[0] = drawn.normal(0, spread)
    for index in range(1, count):
        walk[index] = keeps * walk[index - 1] + steps[index]
    return walk


def simulated(drawn: np.random.Generator, true: float, count: int, keeps: float) -> Rounds:
    """Two models whose times share a machine's load, with a wandering of their own and rare spikes."""
    load = wandering(drawn, count, keeps, 0.15)

    def times(mean: float) -> np.ndarray:
        own = wandering(drawn, count, keeps, 0.05) + drawn.normal(0, 0.03, count)
        spikes = (drawn.random(count) < 0.05) * drawn.exponential(0.5, count)
        return mean * np.exp(load + own + spikes)

    return Rounds({"baseline": times(true), "candidate": times(1.0), "again": times(true)})


def test_a_models_own_time_has_an_interval_that_usually_holds_it() -> None:
    held = 0
    for trial in range(60):
        drawn = np.random.default_rng(trial)
        times = 3 * np.exp(drawn.normal(0, 0.1, 120)) / np.exp(0.005)
        found = mean_seconds([Rounds({"candidate": times})], "candidate", seed=trial)
        held += found.interval[0] <= 3 <= found.interval[1]
        assert found.value == pytest.approx(times.mean())
    assert held >= 52
    assert mean_seconds([Rounds({"one": np.asarray([2.0])})], "one") == (2.0, (2.0, 2.0))


def coverage(count: int, keeps: float, blocks: int, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(ratios, "BLOCKS", blocks)
    monkeypatch.setattr(ratios, "RESAMPLES", 500)
    drawn = np.random.default_rng(7)
    held = 0
    for trial in range(TRIALS):
        low, high = ratio(simulated(drawn, 2.0, count, keeps), "baseline", "candidate", seed=trial).interval
        held += low <= 2.0 <= high
    return held / TRIALS


@pytest.mark.parametrize(("count", "keeps"), [(17, 0.0), (60, 0.5), (400, 0.9)])
def test_the_interval_holds_the_true_ratio_as_often_as_it_says(
    count: int, keeps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of 100 trials at 95 %, fewer than 87 hold it once in a thousand times.
    assert coverage(count, keeps, ratios.BLOCKS, monkeypatch) >= 0.87


def test_rounds_drawn_singly_promise_more_than_they_hold_where_load_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    # Why blocks are drawn: 400 rounds of a lasting load are not 400 observations.
    assert coverage(400, 0.9, 400, monkeypatch) < 0.8


def processes_that_differ(drawn: np.random.Generator, between: float, processes: int = 3) -> list[Rounds]:
    """Each process has a ratio of its own: where its memory came to lie, no round changes."""
    return [simulated(drawn, 2.0 * float(np.exp(drawn.normal(0, between))), 30, 0.3) for _ in range(processes)]


def held_across(between: float, pooled: bool, monkeypatch: pytest.MonkeyPatch) -> float:
    """How often an interval over three processes, or of their rounds as if they were one's, holds the true ratio."""
    monkeypatch.setattr(ratios, "RESAMPLES", 500)
    drawn = np.random.default_rng(11)
    held = 0
    for trial in range(TRIALS):
        processes = processes_that_differ(drawn, between)
        if pooled:
            names = processes[0].seconds
            processes = [Rounds({name: np.concatenate([one.seconds[name] for one in processes]) for name in names})]
        low, high = ratio_across(processes, "baseline", "candidate", seed=trial).interval
        held += low <= 2.0 <= high
    return held / TRIALS


@pytest.mark.parametrize("between", [0.0, 0.03, 0.2])
def test_the_interval_over_processes_holds_the_true_ratio_however_much_they_differ(
    between: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert held_across(between, False, monkeypatch) >= 0.87


def test_rounds_of_several_processes_taken_for_one_processs_promise_more_than_they_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Why processes are the observations.
    assert held_across(0.2, True, monkeypatch) < 0.75


def test_processes_that_agree_by_chance_do_not_narrow_the_interval_below_that_of_their_rounds() -> None:
    one = simulated(np.random.default_rng(9), 2.0, 30, 0.3)
    low, high = ratio_across([one, one, one], "baseline", "candidate").interval
    # Student's interval of three equal processes has no width.
    assert low < 0.99 * ratio(one, "baseline", "candidate").value < high
    alone = ratio(one, "baseline", "candidate").interval
    assert np.log(high / low) == pytest.approx(np.log(alone[1] / alone[0]) / np.sqrt(3), rel=0.25)


def test_the_ratio_over_processes_is_the_geometric_mean_of_theirs_and_its_interval_students() -> None:
    means = np.asarray([1.5, 2.0, 3.0])
    processes = [
        Rounds({"baseline": np.full(9, mean), "candidate": np.ones(9), "again": np.full(9, mean)}) for mean in means
    ]
    found = ratio_across(processes, "baseline", "candidate")
    assert found.value == pytest.approx(float(np.prod(means)) ** (1 / 3))
    error = float(np.log(means).std(ddof=1)) / np.sqrt(3)
    # The quantile of two degrees of freedom at 97.5 %.
    assert np.log(found.interval[1] / found.value) == pytest.approx(4.30265 * error, rel=1e-4)
    assert np.log(found.value / found.interval[0]) == pytest.approx(4.30265 * error, rel=1e-4)
    assert ratio_across(processes, "baseline", "again").interval == (1.0, 1.0)
    assert mean_seconds(processes, "baseline").value == pytest.approx(found.value)


def test_a_model_against_itself_is_called_within_noise() -> None:
    drawn = np.random.default_rng(3)
    called = []
    for _ in range(60):
        rounds = simulated(drawn, 1.0, 60, 0.5)
        noise = ratio(rounds, "baseline", "again").interval
        called.append(difference(ratio(rounds, "baseline", "candidate").interval, noise))
    assert called.count(Difference.WITHIN_NOISE) >= 59


def test_a_model_twice_as_fast_is_called_faster_and_the_other_slower() -> None:
    rounds = simulated(np.random.default_rng(4), 2.0, 60, 0.5)
    noise = ratio(rounds, "baseline", "again").interval
    assert difference(ratio(rounds, "baseline", "candidate").interval, noise) is Difference.FASTER
    assert difference(ratio(rounds, "candidate", "baseline").interval, noise) is Difference.SLOWER


@pytest.mark.parametrize(
    ("interval", "noise", "called"),
    [
        ((1.02, 1.04), (0.99, 1.03), Difference.WITHIN_NOISE),
        ((1.05, 1.09), (0.99, 1.03), Difference.FASTER),
        # Which of two runs of one model stands above says nothing: 0.9 is as noisy as 1/0.9.
        ((1.05, 1.09), (0.90, 1.00), Difference.WITHIN_NOISE),
        ((0.80, 0.95), (0.99, 1.03), Difference.SLOWER),
        ((0.80, 1.20), (1.00, 1.00), Difference.WITHIN_NOISE),
    ],
)
def test_a_difference_counts_only_past_the_noise(
    interval: tuple[float, float], noise: tuple[float, float], called: Difference
) -> None:
    assert difference(interval, noise) is called


def test_noise_is_symmetric_on_the_logarithm() -> None:
    assert noise_band((0.8, 1.1)) == pytest.approx((0.8, 1.25))


def test_few_blocks_widen_the_tails_as_students_t_does() -> None:
    # 2.5 % for ever more blocks; for 5, Φ(-√(5/4) · 2.776) = 0.00095.
    assert expanded_tail(100_000, 0.95) == pytest.approx(0.025, rel=1e-3)
    assert expanded_tail(5, 0.95) == pytest.approx(0.00095, rel=0.02)


def test_the_value_is_the_ratio_of_medians_and_lies_in_its_interval() -> None:
    rounds = simulated(np.random.default_rng(5), 3.0, 40, 0.0)
    found = ratio(rounds, "baseline", "candidate")
    medians = [float(np.median(rounds.seconds[name])) for name in ("baseline", "candidate")]
    assert found.value == pytest.approx(medians[0] / medians[1])
    assert found.interval[0] <= found.value <= found.interval[1]
    assert found == ratio(rounds, "baseline", "candidate")


def test_real_work_of_a_known_ratio_is_measured_as_such() -> None:
    def spin(seconds: float) -> None:
        # By the process's own processor time: a neighbour's load lengthens the wall time of both alike.
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    calls = {"baseline": lambda _: spin(0.006), "candidate": lambda _: spin(0.002), "again": lambda _: spin(0.006)}
    rounds = interleave(calls, seconds=2.0, seed=0, clock=time.process_time)
    found = ratio(rounds, "baseline", "candidate")
    noise = ratio(rounds, "baseline", "again").interval
    assert found.value == pytest.approx(3.0, rel=0.05)
    assert difference(found.interval, noise) is Difference.FASTER
    assert difference(noise, noise) is Difference.WITHIN_NOISE


def test_over_workloads_the_interval_holds_the_mean_and_is_sharper_than_all_at_their_worst() -> None:
    drawn = np.random.default_rng(0)
    spread, held, reaches = 0.1, 0, []
    for _ in range(400):
        seen = drawn.normal(np.log(1.2), spread, 5)
        reach = 1.96 * spread
        found = over_workloads([Ratio(np.exp(x), (np.exp(x - reach), np.exp(x + reach))) for x in seen])
        held += found.interval[0] <= 1.2 <= found.interval[1]
        reaches.append(np.log(found.value / found.interval[0]))
    assert 0.92 <= held / 400 <= 0.98
    assert np.mean(reaches) == pytest.approx(1.96 * spread / np.sqrt(5))
