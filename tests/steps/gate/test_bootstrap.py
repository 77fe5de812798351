"""BCa bounds: what they are, and how often a candidate at the margin passes by them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gate_readme import is_in_readme
from lane_artifacts import LABELS, judge_lane, lane_measurements
from macro_f1_truth import TASK, at_the_margin, simulated_rates
from modelmill.core.errors import RecipeError
from modelmill.core.evidence import LaneEvidence, Verdict
from modelmill.steps.gate import judge
from modelmill.steps.gate.bootstrap import Bootstrap, acceleration, bca_bounds, kinds_of
from modelmill.steps.gate.compare import Answers
from modelmill.steps.gate.comparing import resampled_of
from modelmill.steps.gate.contract import Policy
from modelmill.steps.gate.estimates import LEAST_UNITS, Paired, Resampled
from modelmill.steps.gate.run import metric_of

MARGIN = 0.01
SHAPES: dict[str, dict[str, bool]] = {
    "even classes": {},
    "uneven classes": {"uneven": True},
    "only rare classes lose": {"uneven": True, "rare": True},
}


def mean_of(values: np.ndarray) -> Any:
    return lambda weights: weights @ values / weights.sum(axis=1)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_bounds_are_those_of_scipys_implementation(confidence: float) -> None:
    values = np.random.default_rng(1).exponential(2.0, 60)
    found = Bootstrap.of(mean_of(values), np.ones(60, int), resamples=40_000).bounds(confidence)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, confidence_level=2 * confidence - 1, method="BCa", rng=0
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.02 * width)
    # Skewed as the values are, the bounds are not as far from the mean on both sides.
    assert found[1] - values.mean() > 1.1 * (values.mean() - found[0])


def test_the_acceleration_of_a_mean_is_a_sixth_of_its_skewness_over_the_root_of_the_rows() -> None:
    values, counts = np.asarray([0.0, 1.0, 5.0]), np.asarray([50, 30, 20])
    rows = np.repeat(values, counts)
    assert acceleration(mean_of(values), counts) == pytest.approx(stats.skew(rows) / 6 / math.sqrt(100), rel=1e-6)


def test_rows_that_are_alike_are_drawn_together_and_change_nothing() -> None:
    generator = np.random.default_rng(0)
    reference, before, after = generator.integers(0, 4, (3, 500))
    kinds = kinds_of(reference, before, after)
    assert kinds.rows == 500
    assert len(kinds.first) <= 64
    counted = {
        (int(reference[row]), int(before[row]), int(after[row])): int(count)
        for row, count in zip(kinds.first, kinds.counts, strict=True)
    }
    assert counted == {
        key: int(((reference == key[0]) & (before == key[1]) & (after == key[2])).sum()) for key in counted
    }


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_a_weighted_metric_is_that_of_rows_repeated(name: str) -> None:
    generator = np.random.default_rng(3)
    reference, predicted = generator.integers(0, 5, (2, 30))
    weights = generator.integers(0, 4, (6, 30))
    weights[5] = (reference == 2).astype(int)
    found = TASK.weighted_metric(name, predicted, reference, weights.astype(float))
    labels = [str(number) for number in range(5)]
    expected = [TASK.metrics(np.repeat(predicted, row), np.repeat(reference, row), labels)[name] for row in weights]
    assert found == pytest.approx(expected, abs=1e-12)


def test_statistics_that_never_change_have_no_width() -> None:
    assert bca_bounds(1.0, np.ones(100), 0.0, 0.95) == (1.0, 1.0)
    assert Bootstrap.of(mean_of(np.ones(2)), np.asarray([3, 4])).bounds(0.95) == pytest.approx((1.0, 1.0))


def compared(rows: int, lost: int, gained: int = 0, wrong: int = 0) -> Resampled:
    """Three classes; the first rows are lost, the next gained, the next wrong in both."""
    reference = np.arange(rows) % 3
    other = (reference + 1) % 3
    number = np.arange(rows)
    before = np.where((number >= lost) & (number < lost + gained + wrong), other, reference)
    after = np.where((number < lost) | ((number >= lost + gained) & (number < lost + gained + wrong)), other, reference)
    right = before == reference, after == reference
    answers = Answers(LABELS, reference, before, after, *right)
    return resampled_of(TASK, "macro_f1", answers, Paired("accuracy", rows, lost, gained, int(right[1].sum())))


def test_macro_f1_is_judged_by_the_same_rule_as_a_share() -> None:
    passing = judge.check_drop(compared(3000, 10, 5), Policy())
    assert passing.verdict is Verdict.PASS
    assert "The drop of macro_f1 is at most" in passing.words
    assert "10 rows lost and 5 gained of 3,000" in passing.words
    assert judge.check_drop(compared(3000, 120, 5), Policy()).verdict is Verdict.FAIL
    undecided = judge.check_drop(compared(3000, 36, 9), Policy())
    assert undecided.verdict is Verdict.INCONCLUSIVE
    assert undecided.rows_to_settle is not None
    assert undecided.rows_to_settle > 3000
    assert judge.check_metric(compared(3000, 60, 0, 300), Policy(), 0.86).verdict is Verdict.PASS
    assert judge.check_metric(compared(3000, 60, 0, 300), Policy(), 0.88).verdict is Verdict.INCONCLUSIVE
    assert judge.check_metric(compared(3000, 60, 0, 300), Policy(), 0.95).verdict is Verdict.FAIL


def test_no_row_lost_is_no_certainty_for_a_bootstrap_either() -> None:
    few = judge.check_drop(compared(LEAST_UNITS, 0), Policy(max_drop_points=0.2))
    assert few.verdict is Verdict.INCONCLUSIVE
    assert few.interval is not None
    assert few.interval[1] == pytest.approx(100 * (1 - 0.05 ** (1 / LEAST_UNITS)), rel=1e-6)


def test_too_few_rows_for_a_bootstrap_are_told() -> None:
    few = compared(LEAST_UNITS - 1, 0)
    assert judge.check_drop(few, Policy()).verdict is Verdict.INCONCLUSIVE
    check = judge.check_rows(few, Policy())
    assert check.verdict is Verdict.INCONCLUSIVE
    assert "(a bootstrap of macro_f1 needs so many): 1 more are needed" in check.words


def test_the_step_judges_by_the_metric_that_the_policy_names(tmp_path: Path, tiny_bert: Path) -> None:
    policy = Policy(metric="macro_f1", max_drop_points=5)
    found = [
        (judge_lane(tmp_path / name, tiny_bert, policy=policy, measurements=lane_measurements())["verdict"])
        for name in ("1", "2")
    ]
    first, second = ((directory / "verdict.json").read_bytes() for directory in found)
    assert first == second
    evidence = LaneEvidence.model_validate_json(first)
    assert evidence.metric.name == "macro_f1"
    assert "BCa" in evidence.method
    assert evidence.verdict is Verdict.INCONCLUSIVE
    assert "300 evaluation rows, where 1,000 are the least" in evidence.reasons[0]
    assert evidence.baseline == pytest.approx(0.99, abs=0.005)
    low, high = evidence.baseline_ci
    assert low < evidence.baseline < high


def test_a_metric_that_the_task_lacks_is_named_with_those_it_has() -> None:
    with pytest.raises(RecipeError, match=r"no metric 'macro-f1' to judge by: did you mean macro_f1\?"):
        metric_of(TASK, "macro-f1")
    assert metric_of(TASK, None).name == "accuracy"


@pytest.mark.parametrize("gained", [0.0, 0.005, 0.03], ids=["one-sided", "sparse", "frequent"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_candidate_at_the_margin_passes_about_as_often_as_promised(shape: str, gained: float) -> None:
    evaluations = 300
    population = at_the_margin(MARGIN, gained, **SHAPES[shape])
    rates, _ = simulated_rates(population, LEAST_UNITS, MARGIN, 0.95, evaluations, 200)
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / evaluations)
    assert rates.passed <= allowed
    assert rates.failed <= allowed


def test_the_bootstrap_alone_would_pass_most_candidates_at_the_margin() -> None:
    population = at_the_margin(MARGIN, 0.0, uneven=True)
    gate, alone = simulated_rates(population, 100, MARGIN, 0.95, 200, 200)
    assert alone.passed > 0.3
    assert gate.passed < 0.05


@pytest.mark.figures
@pytest.mark.timeout(3600)
def test_the_bootstraps_error_rate_is_what_the_readme_says() -> None:
    lines = [
        "| rows | classes | passes: one-sided | sparse | frequent | BCa alone: one-sided | sparse | frequent |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for rows in (200, 500, 1000, 3080):
        for name, shape in SHAPES.items():
            found = [
                simulated_rates(at_the_margin(MARGIN, gained, **shape), rows, MARGIN, 0.95, 1000, 200)
                for gained in (0.0, 0.005, 0.03)
            ]
            if rows >= LEAST_UNITS:
                assert max(max(gate.passed, gate.failed) for gate, _ in found) <= 0.08
            cells = [f"{100 * rates[which].passed:.1f} %" for which in (0, 1) for rates in found]
            lines.append(f"| {rows:,} | {name} | {' | '.join(cells)} |")
    is_in_readme("bootstrap error rate", lines)
