"""Slices: harm is refused where it is shown, and only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, false_discovery_control, multinomial

from lane_artifacts import judge_lane
from modelmill.core.errors import DataError
from modelmill.core.evidence import LaneEvidence, Slices, Verdict
from modelmill.measuring.noninferiority import EXACT_ROWS, harm_p_value, holm, mcnemar
from modelmill.steps.gate.compare import Answers
from modelmill.steps.gate.contract import Policy, SlicePolicy
from modelmill.steps.gate.slices import check_slices, judge_slices, names_of


def sliced(sizes: dict[str, tuple[int, int, int]], policy: SlicePolicy | None = None, by: str = "class") -> Slices:
    """Slices of (rows, lost, gained), all other rows right in both."""
    names, before, after = [], [], []
    for name, (rows, lost, gained) in sizes.items():
        names += [name] * rows
        before += [False] * gained + [True] * (rows - gained)
        after += [True] * gained + [False] * lost + [True] * (rows - gained - lost)
    right = np.asarray(before), np.asarray(after)
    answers = Answers(list(sizes), np.zeros(len(names), int), *(np.where(item, 0, 1) for item in right), *right)
    return judge_slices(answers, names, by, policy or SlicePolicy(by=by), 0.95)


def test_a_ruined_class_is_refused_though_the_whole_loses_little() -> None:
    found = sliced({"large": (2900, 5, 5), "small": (40, 14, 0), "tiny": (10, 10, 0)})
    check = check_slices(found)
    assert check.verdict is Verdict.FAIL
    assert "1 of 2 slices by class is shown to lose more than the 5 points" in check.words
    assert "(small)" in check.words
    assert "14 lost and 0 gained of 40 rows" in check.words
    assert "1 slice has fewer than 30 rows and is not judged" in check.words
    assert [item.name for item in found.judged] == ["small", "large"]
    assert [(item.name, item.p_value, item.harmed) for item in found.thin] == [("tiny", None, False)]


def test_a_loss_that_may_be_chance_refuses_nothing() -> None:
    # Four rows of forty are ten points, and one time in seven what five points look like.
    check = check_slices(sliced({"large": (2900, 5, 5), "small": (40, 4, 0)}))
    assert check.verdict is Verdict.PASS
    assert check.value == 10
    assert check.words.startswith("None of 2 slices by class is shown to lose more")


def test_looking_at_many_slices_asks_for_more_evidence_of_each() -> None:
    one = {"a": (60, 10, 1)}
    assert check_slices(sliced(one)).verdict is Verdict.FAIL
    many = one | {f"other {number}": (60, 1, 1) for number in range(20)}
    assert check_slices(sliced(many)).verdict is Verdict.PASS


def test_values_of_a_column_are_in_the_table_and_not_in_the_words() -> None:
    found = sliced({"Müller & Co": (100, 50, 0), "others": (100, 0, 0)}, by="customer")
    assert "Müller" not in check_slices(found).words
    assert found.judged[0].name == "Müller & Co"
    assert "Müller" not in found.without_texts().model_dump_json()


@pytest.mark.parametrize(("rows", "allowed"), [(12, 0.0), (30, 0.05), (45, 0.02)])
@pytest.mark.parametrize("gained", [0.0, 0.013, 0.1])
def test_the_exact_p_value_is_below_any_level_at_most_that_often(rows: int, allowed: float, gained: float) -> None:
    b, c = np.meshgrid(np.arange(rows + 1), np.arange(rows + 1), indexing="ij")
    chance = multinomial.pmf(
        np.stack([b, c, rows - b - c], axis=-1), rows, [gained + allowed, gained, 1 - 2 * gained - allowed]
    )
    likely = [(int(i), int(j)) for i, j in np.argwhere((chance > 1e-7) & (b > c))]
    p = np.asarray([harm_p_value(i, j, rows, allowed) for i, j in likely])
    weight = np.asarray([chance[outcome] for outcome in likely])
    for level in (0.05, 0.01, 0.05 / 77):
        assert weight[p <= level].sum() <= level * 1.001


def test_one_sided_losses_have_the_binomials_p_value() -> None:
    assert harm_p_value(6, 0, 60, 0.05) >= binom.sf(5, 60, 0.05) * 0.999
    rows = EXACT_ROWS + 100
    assert harm_p_value(30, 0, rows, 0.05) >= binom.sf(29, rows, 0.05) * 0.999


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    # Never smaller than what controls the false discovery rate alone.
    p = np.random.default_rng(0).random(50) ** 3
    assert (np.asarray(holm(p.tolist())) >= false_discovery_control(p) - 1e-12).all()


def test_mcnemar_is_that_of_its_source() -> None:
    # Fagerland, Lydersen and Laake (2013): Bentur's table, 1 and 7 pairs that differ.
    assert mcnemar(1, 7) == pytest.approx((0.0703, 0.0391), abs=5e-5)
    assert mcnemar(7, 1) == mcnemar(1, 7)
    assert mcnemar(0, 0) == (1.0, 0.5)
    assert mcnemar(900, 100)[0] < 1e-100


def evidence_of(lane: dict[str, Path]) -> LaneEvidence:
    return LaneEvidence.model_validate_json((lane["verdict"] / "verdict.json").read_bytes())


def test_the_step_judges_slices_by_class_and_by_column(tmp_path: Path, tiny_bert: Path) -> None:
    german = [index for index in range(300) if index % 5 == 0][:20]
    for by, harmed in (("class", False), ("language", True)):
        policy = Policy(max_drop_points=20, slices=SlicePolicy(by=by, max_drop_points=15))
        lane = judge_lane(tmp_path / by, tiny_bert, wrong=german, policy=policy)
        found = evidence_of(lane)
        assert found.slices is not None
        assert found.slices.by == by
        assert sum(item.rows for item in found.slices.judged) == 300
        assert found.slices.judged[0].harmed is harmed
        assert found.verdict is (Verdict.FAIL if harmed else Verdict.PASS)
        html = (lane["report"] / "report.html").read_text("utf-8")
        assert f"Slices by {by}" in html
        assert "<b>de</b>" not in html
        assert "McNemar" in html
    assert "&lt;b&gt;de" in html
    assert not any("de</b>" in reason for reason in found.reasons)


def test_without_a_policy_for_slices_there_are_none(tmp_path: Path, tiny_bert: Path) -> None:
    found = evidence_of(judge_lane(tmp_path, tiny_bert))
    assert found.slices is None
    assert all(check.name != "slices" for check in found.checks)


def test_a_column_that_rows_lack_is_named_with_those_they_have() -> None:
    right = np.ones(2, bool)
    answers = Answers([], np.zeros(2), np.zeros(2), np.zeros(2), right, right)
    rows = [{"id": "a:1", "text": "x", "language": "en"}, {"id": "a:2", "text": "y", "language": None}]
    with pytest.raises(DataError, match=r"'language', which the evaluation row a:2 lacks"):
        names_of("language", answers, rows)
    with pytest.raises(DataError, match="this task has no classes"):
        names_of("class", answers, rows)
