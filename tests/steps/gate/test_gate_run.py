"""The step: from artifacts to verdict.json and report.html."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lane_artifacts import (
    GIVEN_TO_GATE,
    LABELS,
    TASK,
    judge_lane,
    lane_measurements,
    write_lane_predictions,
    write_lane_rows,
)
from modelmill.core import manifest
from modelmill.core.contract import PortType
from modelmill.core.errors import DataError, ModelError
from modelmill.core.evidence import LaneEvidence, Verdict
from modelmill.core.progress import SilentProgress
from modelmill.steps.gate import contract as gate
from modelmill.steps.gate.run import run


def evidence_of(lane: dict[str, Path]) -> LaneEvidence:
    return LaneEvidence.model_validate_json((lane["verdict"] / "verdict.json").read_bytes())


def run_again(lane: dict[str, Path], work: Path) -> None:
    outputs = gate.Outputs(verdict=work / "verdict-2", report=work / "report-2")
    outputs.verdict.mkdir()
    outputs.report.mkdir()
    inputs = gate.Inputs(**{name: lane[name] for name in GIVEN_TO_GATE})
    run(inputs, outputs, gate.Settings(task=TASK, target="cpu-int8", policy=gate.Policy()), SilentProgress())


def test_evidence_counts_what_changed(tmp_path: Path, tiny_bert: Path) -> None:
    lane = judge_lane(tmp_path, tiny_bert, wrong=[0, 1, 3, 4, 7])
    found = evidence_of(lane)
    assert found.verdict is Verdict.PASS
    assert (found.rows, found.lost, found.gained, found.disagreement_count) == (300, 3, 1, 4)
    assert (found.baseline, found.candidate) == (297 / 300, 295 / 300)
    assert found.drop_points == pytest.approx(200 / 300)
    assert found.drop_points_ci[0] < found.drop_points < found.drop_points_ci[1]
    assert found.baseline_ci[0] < found.baseline < found.baseline_ci[1]
    # Rows 3 (alpha), 4 and 7 (beta) were lost; row 2 (gamma) was gained.
    changes = {item.label: item.candidate_correct - item.baseline_correct for item in found.classes}
    assert changes == {"alpha": -1, "beta": -2, "gamma": 1}
    assert found.classes[0].label == "beta"
    first = found.confusions[0]
    assert (first.reference, first.baseline, first.candidate, first.rows) == ("beta", "beta", "gamma", 2)
    assert [item.row for item in found.disagreements] == [f"test.jsonl:{row + 1}" for row in (3, 4, 7, 2)]
    assert found.disagreements[1].text == "<script>alert(1)</script> 4"
    assert found.metrics["candidate"] == {"accuracy": 295 / 300, "macro_f1": 0.9}
    assert found.precision == "int8"
    assert found.model_facts == {"quantized_operators": 3}
    assert found.digests["model"] == manifest.build(lane["model"], PortType.MODEL).digest


def test_the_report_escapes_texts_of_the_data(tmp_path: Path, tiny_bert: Path) -> None:
    lane = judge_lane(tmp_path, tiny_bert, wrong=[0, 1, 4])
    html = (lane["report"] / "report.html").read_text("utf-8")
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_a_refusal_is_a_result(tmp_path: Path, tiny_bert: Path) -> None:
    found = evidence_of(judge_lane(tmp_path, tiny_bert, wrong=list(range(60))))
    assert found.verdict is Verdict.FAIL
    assert found.reasons[0].startswith("The drop of accuracy is at least")


def test_at_most_two_hundred_disagreements_are_kept(tmp_path: Path, tiny_bert: Path) -> None:
    found = evidence_of(judge_lane(tmp_path, tiny_bert, wrong=list(range(10, 290))))
    assert found.disagreement_count == 283
    assert len(found.disagreements) == 200


def test_equal_inputs_give_equal_verdict_bytes(tmp_path: Path, tiny_bert: Path) -> None:
    first = judge_lane(tmp_path / "1", tiny_bert, measurements=lane_measurements())
    second = judge_lane(tmp_path / "2", tiny_bert, measurements=lane_measurements())
    for port, name in (("verdict", "verdict.json"), ("report", "report.html")):
        assert (first[port] / name).read_bytes() == (second[port] / name).read_bytes()


def test_predictions_of_other_rows_are_refused(tmp_path: Path, tiny_bert: Path) -> None:
    lane = judge_lane(tmp_path / "1", tiny_bert)
    other = write_lane_rows(tmp_path / "other", 299)
    write_lane_predictions(lane["candidate"], other, [])
    with pytest.raises(ModelError, match=r"the candidate's predictions are of the rows sha256:"):
        run_again(lane, tmp_path)


def test_predictions_of_another_length_are_refused(tmp_path: Path, tiny_bert: Path) -> None:
    lane = judge_lane(tmp_path / "1", tiny_bert)
    np.save(lane["baseline"] / "predicted.npy", np.zeros(7, np.int64), allow_pickle=False)
    with pytest.raises(ModelError, match=r"the baseline's predictions have lengths .*'predicted': 7"):
        run_again(lane, tmp_path)


def test_predictions_with_labels_in_another_order_are_refused(tmp_path: Path, tiny_bert: Path) -> None:
    lane = judge_lane(tmp_path / "1", tiny_bert)
    write_lane_predictions(lane["candidate"], lane["rows"], [], labels=LABELS[::-1])
    with pytest.raises(ModelError, match="name other labels than the baseline's, or in another order"):
        run_again(lane, tmp_path)


def test_predictions_with_other_references_are_refused(tmp_path: Path, tiny_bert: Path) -> None:
    lane = judge_lane(tmp_path / "1", tiny_bert)
    np.save(lane["candidate"] / "reference.npy", np.zeros(300, np.int64), allow_pickle=False)
    with pytest.raises(ModelError, match="other references than the baseline's"):
        run_again(lane, tmp_path)


def test_an_empty_evaluation_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    lane = judge_lane(tmp_path / "1", tiny_bert)
    write_lane_rows(lane["rows"], 0)
    with pytest.raises(DataError, match="there are no evaluation rows"):
        run_again(lane, tmp_path)
