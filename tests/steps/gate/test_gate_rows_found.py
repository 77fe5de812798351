"""Rows that chose a model do not judge it; rows of other classes are told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lane_artifacts import GIVEN_TO_GATE, TASK, judge_lane, lane_measurements, write_lane_predictions
from modelmill.core.evidence import LaneEvidence, RowsFound, Verdict
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import Dataset, Role
from modelmill.steps.gate import contract as gate
from modelmill.steps.gate import rows_found
from modelmill.steps.gate.run import run


@pytest.mark.parametrize(("leaked", "verdict"), [(0, Verdict.PASS), (15, Verdict.PASS), (16, Verdict.FAIL)])
def test_at_most_one_row_in_twenty_may_have_chosen_the_model(leaked: int, verdict: Verdict) -> None:
    found = RowsFound(leaked=leaked, leaked_with_another_label=min(leaked, 3))
    (check,) = rows_found.checks(found, 300, gate.Policy())
    assert check.verdict is verdict
    assert f"{leaked} of 300 evaluation rows have a text that also chose the model" in check.words
    assert ("3 of them under another label" in check.words) is (leaked > 0)
    assert ("take them out of data.evaluate" in check.words) is (verdict is Verdict.FAIL)


def test_what_nobody_looked_for_is_not_judged() -> None:
    dataset = Dataset(task=TASK, role=Role.EVALUATE, columns=["text", "label"], labels=["a", "b"], count=4)
    found = rows_found.rows_found(dataset, ["a", "b", "a", "b"], 0.95)
    assert found == RowsFound(classes={"a": 2, "b": 2})
    assert rows_found.checks(found, 4, gate.Policy(max_class_shift=0.1)) == []


def test_classes_that_come_by_chance_are_hardly_ever_called_shifted() -> None:
    draw = np.random.default_rng(0)
    share = draw.dirichlet(np.ones(20))
    above = 0
    for _ in range(400):
        here, trained = (
            {str(label): int(count) for label, count in enumerate(draw.multinomial(rows, share)) if count}
            for rows in (300, 2000)
        )
        _, least = rows_found.class_shift(here, trained, 0.95)
        above += least > 0
    assert above <= 400 * 0.05


def test_another_mixture_of_classes_is_shown_and_refused_where_asked() -> None:
    seen, least = rows_found.class_shift({"a": 900, "b": 100}, {"a": 500, "b": 400, "c": 100}, 0.95)
    assert seen == pytest.approx(0.4)
    assert 0.3 < least < seen
    found = RowsFound(class_shift=seen, class_shift_at_least=least)
    assert rows_found.checks(found, 1000, gate.Policy()) == []
    for most, verdict in ((0.3, Verdict.FAIL), (0.38, Verdict.PASS)):
        (check,) = rows_found.checks(found, 1000, gate.Policy(max_class_shift=most))
        assert check.verdict is verdict


def test_the_step_refuses_rows_that_were_seen_before(tmp_path: Path, tiny_bert: Path) -> None:
    lane = judge_lane(tmp_path / "lane", tiny_bert, measurements=lane_measurements())
    path = lane["rows"] / "dataset.json"
    facts = {
        "duplicates": 40,
        "duplicates_with_another_label": 1,
        "train_rows_by_label": {"alpha": 10, "beta": 10, "gamma": 180},
    }
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "facts": facts}), "utf-8")
    inputs = {name: lane[name] for name in GIVEN_TO_GATE}
    for name in ("baseline", "candidate"):
        write_lane_predictions(lane[name], lane["rows"], [0, 1, 2])
    outputs = gate.Outputs(verdict=tmp_path / "verdict", report=tmp_path / "report")
    outputs.verdict.mkdir()
    outputs.report.mkdir()
    settings = gate.Settings(task=TASK, target="cpu", policy=gate.Policy(max_drop_points=5))
    run(gate.Inputs(**inputs), outputs, settings, SilentProgress())
    evidence = LaneEvidence.model_validate_json((outputs.verdict / "verdict.json").read_bytes())
    assert evidence.verdict is Verdict.FAIL
    assert evidence.reasons[0].startswith("40 of 300 evaluation rows")
    assert evidence.rows_found is not None
    assert evidence.rows_found.class_shift == pytest.approx(0.9 - 1 / 3)
    html = (outputs.report / "report.html").read_text("utf-8")
    assert "The rows that judge" in html
