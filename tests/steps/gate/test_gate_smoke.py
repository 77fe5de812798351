"""What gate makes of a smoke test."""

from __future__ import annotations

from pathlib import Path

import pytest

from lane_artifacts import GIVEN_TO_GATE, TASK, judge_lane
from modelmill.core.errors import ModelError
from modelmill.core.evidence import LaneEvidence, Verdict
from modelmill.core.manifest import write_json
from modelmill.core.progress import SilentProgress
from modelmill.core.smoke import ServedLatency, ServedRow, Smoke, SmokeState
from modelmill.steps.gate import contract as gate
from modelmill.steps.gate.run import run
from modelmill.steps.gate.smoke import checks

ALIKE = Smoke(
    state=SmokeState.ANSWERED, words="All 512 predictions agree.", judged="sha256:" + "0" * 64, rows=512, differing=0
)


def latency(lower: float, value: float, upper: float) -> ServedLatency:
    return ServedLatency(
        sequence_length=128,
        in_process_ms_p50=10,
        in_process_ms_p95=12,
        served_ms_p50=11,
        served_ms_p95=12 * value,
        p50_ratio=1.1,
        p50_ratio_ci=(1.0, 1.2),
        p95_ratio=value,
        p95_ratio_ci=(lower, upper),
    )


@pytest.mark.parametrize(
    ("bounds", "verdict", "words"),
    [
        ((1.0, 1.1, 1.9), Verdict.PASS, "at most 1.90 times"),
        ((2.1, 2.5, 3.0), Verdict.FAIL, "at least 2.10 times"),
        ((1.5, 1.9, 2.2), Verdict.INCONCLUSIVE, "between 1.50 and 2.20 times"),
    ],
)
def test_the_bounds_of_the_ratio_decide(bounds: tuple[float, float, float], verdict: Verdict, words: str) -> None:
    smoke = ALIKE.model_copy(update={"latency": latency(*bounds)})
    answers, time = checks(smoke, gate.Policy(max_served_p95_ratio=2.0))
    assert answers.verdict is Verdict.PASS
    assert (time.name, time.verdict) == ("max_served_p95_ratio", verdict)
    assert words in time.words


def test_one_prediction_that_differs_refuses_and_is_named() -> None:
    row = ServedRow(row="test.jsonl:8", evaluated="alpha", served="beta")
    smoke = ALIKE.model_copy(update={"differing": 1, "differences": [row], "words": "1 of 512 differs."})
    (found,) = checks(smoke, gate.Policy())
    assert found.verdict is Verdict.FAIL
    assert "test.jsonl:8: beta there, alpha in the evaluation" in found.words


def test_a_server_that_does_not_load_the_model_refuses() -> None:
    smoke = ALIKE.model_copy(update={"state": SmokeState.FAILED, "rows": 0, "words": "The server does not load it."})
    (found,) = checks(smoke, gate.Policy())
    assert found.verdict is Verdict.FAIL
    assert "does not load" in found.words


def test_where_nothing_was_tried_nothing_is_judged() -> None:
    assert checks(ALIKE.model_copy(update={"state": SmokeState.NOT_RUN}), gate.Policy()) == []


def test_a_bound_on_the_servers_time_without_a_server_is_inconclusive() -> None:
    smoke = ALIKE.model_copy(update={"state": SmokeState.NOT_RUN, "words": "No Triton is installed here."})
    (found,) = checks(smoke, gate.Policy(max_served_p95_ratio=2.0))
    assert (found.name, found.verdict, found.threshold) == ("max_served_p95_ratio", Verdict.INCONCLUSIVE, 2.0)
    assert "No Triton is installed here." in found.words


def test_the_time_is_not_judged_where_the_recipe_sets_no_bound() -> None:
    smoke = ALIKE.model_copy(update={"latency": latency(9, 9, 9)})
    assert [found.name for found in checks(smoke, gate.Policy(max_served_p95_ratio=None))] == ["smoke"]


def test_a_lane_that_the_server_answers_otherwise_is_refused_with_a_report_that_says_why(
    tmp_path: Path, tiny_bert: Path
) -> None:
    lane = judge_lane(tmp_path / "lane", tiny_bert)
    before = LaneEvidence.model_validate_json((lane["verdict"] / "verdict.json").read_bytes())
    assert before.verdict is Verdict.PASS
    assert before.smoke is not None
    assert before.smoke.state is SmokeState.NOT_RUN
    row = ServedRow(row="test.jsonl:8", evaluated="alpha", served="beta")
    changed = {"state": SmokeState.ANSWERED, "words": "1 of 300 differs.", "differing": 1, "differences": [row]}
    smoke = before.smoke.model_copy(update=changed)
    write_json(lane["smoke"] / "smoke.json", smoke.model_dump(mode="json"))
    outputs = gate.Outputs(verdict=tmp_path / "verdict", report=tmp_path / "report")
    outputs.verdict.mkdir()
    outputs.report.mkdir()
    inputs = gate.Inputs(**{name: lane[name] for name in GIVEN_TO_GATE})
    settings = gate.Settings(task=TASK, target="cpu", policy=gate.Policy(max_drop_points=5))
    run(inputs, outputs, settings, SilentProgress())
    evidence = LaneEvidence.model_validate_json((outputs.verdict / "verdict.json").read_bytes())
    assert evidence.verdict is Verdict.FAIL
    assert evidence.reasons[0].startswith("In the server: 1 of 300 differs.")
    assert "test.jsonl:8: beta there" in (outputs.report / "report.html").read_text("utf-8")
    other = smoke.model_copy(update={"judged": "sha256:" + "1" * 64})
    write_json(lane["smoke"] / "smoke.json", other.model_dump(mode="json"))
    with pytest.raises(ModelError, match=r"the smoke test is of the model sha256:1111"):
        run(inputs, outputs, settings, SilentProgress())
