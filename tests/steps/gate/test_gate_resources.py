"""What a candidate takes is judged as it was measured, in words, with a way out where it cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from lane_artifacts import lane_measurements
from modelmill.core.errors import ModelError, RecipeError
from modelmill.core.evidence import Check, Measurements, Neighbours, Shift, Throughput, Verdict
from modelmill.steps.gate import resources
from modelmill.steps.gate.contract import Policy, Settings

THROUGHPUT = Throughput(
    texts=512,
    baseline_texts_per_second=100,
    unquantized_texts_per_second=200,
    candidate_texts_per_second=400,
    candidate_texts_per_second_ci=(380, 420),
)


def measured(**changes: Any) -> Measurements:
    hardware = lane_measurements().hardware.model_copy(update={"threads": 2})
    return lane_measurements().model_copy(update={"hardware": hardware, "throughput": THROUGHPUT, **changes})


def the_check(found: Measurements, neighbours: Neighbours | None = None, **policy: Any) -> Check:
    settings = Settings(
        task="text-classification", target="cpu", policy=Policy(**policy), core_hour=0.04, currency="EUR"
    )
    (check,) = resources.checks(found, neighbours, settings)
    assert check.name == next(iter(policy))
    assert check.threshold == next(iter(policy.values()))
    return check


@pytest.mark.parametrize(("least", "verdict"), [(1.6, Verdict.PASS), (1.75, Verdict.INCONCLUSIVE), (1.9, Verdict.FAIL)])
def test_the_gain_over_the_best_unquantized_model_is_judged_by_its_bounds(least: float, verdict: Verdict) -> None:
    check = the_check(measured(), min_gain_over_unquantized=least)
    assert (check.verdict, check.value, check.interval) == (verdict, 1.75, (1.7, 1.8))
    assert "unquantized model on the same runtime at batch 1, length 128" in check.words


def test_no_slower_than_unquantized_can_be_shown_of_a_model_that_is_as_fast() -> None:
    cell = lane_measurements().latency[0]
    same = cell.model_copy(
        update={"gain_over_unquantized": 1.0, "gain_over_unquantized_ci": (0.98, 1.02), "noise_ratio_ci": (0.98, 1.02)}
    )
    assert the_check(measured(latency=[same]), min_gain_over_unquantized=0.95).verdict is Verdict.PASS
    assert the_check(measured(latency=[same]), min_gain_over_unquantized=1.1).verdict is Verdict.FAIL
    busy = same.model_copy(update={"noise_ratio_ci": (0.8, 1.2)})
    assert the_check(measured(latency=[busy]), min_gain_over_unquantized=0.95).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("most", "verdict"), [(200 << 20, Verdict.PASS), ((200 << 20) - 1, Verdict.FAIL)])
def test_memory_is_judged_by_the_largest_process(most: int, verdict: Verdict) -> None:
    check = the_check(measured(), max_peak_rss_bytes=most)
    assert check.verdict is verdict
    assert "209.7 MB" in check.words


@pytest.mark.parametrize(
    ("each", "verdict", "words"),
    [
        ([0.1, 0.2, 0.3], Verdict.PASS, "0.1 to 0.3 s in 3 fresh processes, within the 0.3 s"),
        ([0.1, 0.2, 0.31], Verdict.INCONCLUSIVE, "that cannot tell"),
        ([0.4, 0.5, 0.31], Verdict.FAIL, "0.31 to 0.5 s in 3 fresh processes, more than the 0.3 s"),
        ([], Verdict.PASS, "took 0.2 s in 1 fresh process, within"),
    ],
)
def test_every_process_must_answer_in_time(each: list[float], verdict: Verdict, words: str) -> None:
    check = the_check(measured(load_seconds_each=each), max_load_seconds=0.3)
    assert check.verdict is verdict
    assert words in check.words


def test_a_cost_is_cores_times_hours_times_price() -> None:
    # 2 cores at 0.04 an hour, 400 texts a second: 2 · 0.04 / 3600 / 400 · 10⁶ = 0.0556.
    check = the_check(measured(), max_cost_per_million_texts=0.06)
    assert check.verdict is Verdict.PASS
    assert check.value == pytest.approx(0.08 / 3600 / 400 * 1e6)
    assert check.interval == pytest.approx((0.08 / 3600 / 420 * 1e6, 0.08 / 3600 / 380 * 1e6))
    assert "on 2 cores at 0.04 EUR a core-hour cost at most 0.0585 EUR, within the 0.06 allowed" in check.words
    assert the_check(measured(), max_cost_per_million_texts=0.055).verdict is Verdict.INCONCLUSIVE
    assert the_check(measured(), max_cost_per_million_texts=0.05).verdict is Verdict.FAIL


def test_a_cost_without_a_price_or_without_texts_says_what_is_missing() -> None:
    policy = Policy(max_cost_per_million_texts=1)
    with pytest.raises(RecipeError, match=r"no price is known\n.*\n.*prices: \{core_hour"):
        resources.checks(measured(), None, Settings(task="text-classification", target="cpu", policy=policy))
    with pytest.raises(ModelError, match=r"throughput_rows a number above 0"):
        the_check(measured(throughput=None), max_cost_per_million_texts=1)


@pytest.mark.parametrize(("most", "verdict"), [(3, Verdict.PASS), (2, Verdict.FAIL)])
def test_predictions_that_flip_with_their_neighbours_are_counted(most: int, verdict: Verdict) -> None:
    shift = Shift(flips=1, largest=0.5, median=0.01)
    mixed, padded = (shift.model_copy(update={"flips": 3, "largest": size}) for size in (0.6, 0.7))
    found = Neighbours(rows=256, flips=3, alone=shift, mixed=mixed, padded=padded)
    check = the_check(measured(), found, max_batch_flips=most)
    assert check.verdict is verdict
    assert check.words.startswith("3 of 256 predictions flip with their neighbours in the batch (1 alone, 3 among")
    assert "3 with more padding)" in check.words
    assert "by up to 0.7." in check.words


def test_flips_that_nobody_counted_cannot_be_judged() -> None:
    with pytest.raises(ModelError, match=r"run evaluate-candidate of this version"):
        the_check(measured(), max_batch_flips=0)
