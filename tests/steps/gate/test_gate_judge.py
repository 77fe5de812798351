"""Verdicts and their words."""

from __future__ import annotations

import pytest

from lane_artifacts import lane_measurements
from modelmill.core.errors import ModelError
from modelmill.core.evidence import Check, Measurements, Verdict
from modelmill.steps.gate import judge, resources
from modelmill.steps.gate.contract import Policy, Settings
from modelmill.steps.gate.estimates import Paired


def every_check(answers: Paired, measured: Measurements, policy: Policy) -> list[Check]:
    settings = Settings(task="text-classification", target="cpu", policy=policy)
    return [*judge.checks(answers, policy), *resources.checks(measured, None, settings)]


def paired(rows: int = 3080, lost: int = 20, gained: int = 15, correct: int = 2830) -> Paired:
    return Paired("accuracy", rows, lost, gained, correct)


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        (paired(lost=20, gained=15), Verdict.PASS),
        (paired(lost=0, gained=0), Verdict.PASS),
        (paired(lost=90, gained=10), Verdict.FAIL),
        (paired(lost=60, gained=35), Verdict.INCONCLUSIVE),
        (paired(rows=200, lost=0, gained=0), Verdict.INCONCLUSIVE),
        (paired(rows=49, lost=49, gained=0), Verdict.INCONCLUSIVE),
    ],
)
def test_the_drop_passes_and_fails_only_on_what_is_demonstrated(answers: Paired, verdict: Verdict) -> None:
    assert judge.check_drop(answers, Policy()).verdict is verdict


def test_the_verdict_never_contradicts_the_interval_that_is_shown() -> None:
    for rows in (90, 3080):
        for lost in (0, 3, 12, 40):
            for gained in (0, 5, 30):
                check = judge.check_drop(paired(rows, lost, gained), Policy())
                assert check.interval is not None
                lower, upper = check.interval
                expected = Verdict.PASS if upper <= 1 else Verdict.FAIL if lower > 1 else Verdict.INCONCLUSIVE
                assert check.verdict is expected


def test_an_open_drop_says_how_many_more_rows_would_decide() -> None:
    check = judge.check_drop(paired(rows=200, lost=0, gained=0), Policy())
    assert check.rows_to_settle == 299
    assert "about 99 more rows would (299 in all)" in check.words
    assert "200 rows cannot tell" in check.words


def test_an_open_drop_says_when_no_number_of_rows_would_decide() -> None:
    check = judge.check_drop(paired(rows=1000, lost=20, gained=10), Policy())
    assert check.verdict is Verdict.INCONCLUSIVE
    assert check.rows_to_settle is None
    assert "no feasible number of rows would" in check.words


def test_too_few_rows_leave_the_metric_open_but_not_the_size() -> None:
    few = paired(rows=20, lost=0, gained=0, correct=20)
    found = every_check(few, lane_measurements(), Policy(min_metric=0.5))
    assert [check.verdict for check in found] == [Verdict.INCONCLUSIVE] * 3
    assert "30 more are needed" in judge.overall(found)[1][0]
    found = every_check(few, lane_measurements(), Policy(max_size_ratio=0.1))
    assert judge.overall(found)[0] is Verdict.FAIL


@pytest.mark.parametrize(
    ("least", "verdict"), [(2.3, Verdict.PASS), (2.5, Verdict.INCONCLUSIVE), (2.7, Verdict.FAIL), (2.4, Verdict.PASS)]
)
def test_speed_is_judged_by_the_bounds_of_its_ratio(least: float, verdict: Verdict) -> None:
    check = resources.check_speedup(lane_measurements().latency[0], least)
    assert check.verdict is verdict
    assert check.interval == (2.4, 2.6)
    assert "batch 1, length 128" in check.words


@pytest.mark.parametrize(("noise", "verdict"), [((0.9, 1.1), Verdict.PASS), ((0.3, 2.0), Verdict.INCONCLUSIVE)])
def test_a_speed_up_within_the_machines_noise_is_no_evidence(noise: tuple[float, float], verdict: Verdict) -> None:
    cell = lane_measurements().latency[0].model_copy(update={"noise_ratio_ci": noise})
    assert resources.check_speedup(cell, 1.5).verdict is verdict


@pytest.mark.parametrize(("most", "verdict"), [(0.27, Verdict.PASS), (0.25, Verdict.FAIL), (23 / 90, Verdict.PASS)])
def test_size_is_judged_exactly(most: float, verdict: Verdict) -> None:
    assert resources.check_size(lane_measurements(), most).verdict is verdict


@pytest.mark.parametrize(
    ("least", "verdict"), [(0.9, Verdict.PASS), (0.919, Verdict.INCONCLUSIVE), (0.95, Verdict.FAIL)]
)
def test_the_metric_is_judged_by_its_interval(least: float, verdict: Verdict) -> None:
    check = judge.check_metric(paired(correct=2834), Policy(), least)
    assert check.verdict is verdict
    assert (check.rows_to_settle is not None) == (verdict is Verdict.INCONCLUSIVE)


def test_one_fail_outweighs_an_open_check_and_that_a_pass() -> None:
    policy = Policy(min_speedup=2.7, max_size_ratio=0.3)
    found = every_check(paired(rows=200, lost=0, gained=0), lane_measurements(), policy)
    verdict, reasons = judge.overall(found)
    assert verdict is Verdict.FAIL
    assert reasons[0].startswith("The speed-up")
    assert reasons[1].startswith("The drop")
    open_verdict, _ = judge.overall([check for check in found if check.name != "min_speedup"])
    assert open_verdict is Verdict.INCONCLUSIVE


def test_a_threshold_left_out_is_not_checked() -> None:
    assert [check.name for check in every_check(paired(), lane_measurements(), Policy())] == [
        "max_drop_points",
        "min_rows",
    ]


def test_speed_cannot_be_judged_where_nothing_was_timed() -> None:
    untimed = lane_measurements().model_copy(update={"latency": []})
    with pytest.raises(ModelError, match=r"hold none\n.*gate\.min_speedup\n.*measure\.cells"):
        every_check(paired(), untimed, Policy(min_speedup=1.5))


def test_the_method_names_the_levels_of_its_bounds() -> None:
    assert "one-sided at 95 % confidence" in paired().method(0.95)
    assert "two-sided at 90 %" in paired().method(0.95)
    assert "two-sided at 95 %" in paired().method(0.975)
