"""Rows that belong together are resampled together, and are judged only where there are units enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gate_readme import is_in_readme
from lane_artifacts import (
    TASK,
    lane_measurements,
    write_lane_measurements,
    write_lane_model,
    write_lane_predictions,
    write_lane_smoke,
)
from modelmill.core.errors import DataError, RecipeError
from modelmill.core.evidence import LaneEvidence, Verdict
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import Dataset, Role, write_rows
from modelmill.recipe import from_mapping
from modelmill.steps.gate import contract as gate
from modelmill.steps.gate.compare import Answers
from modelmill.steps.gate.comparing import Named, compared_of
from modelmill.steps.gate.run import run
from modelmill.steps.gate.units import LEAST_UNITS, ByUnit
from modelmill.tasks import registry
from unit_populations import PATTERNS, rates

LABELS = ["alpha", "beta", "gamma"]


def answers(lost: list[int], gained: list[int], rows: int) -> Answers:
    """Both models are right on all rows but those."""
    reference = np.arange(rows) % 3
    baseline, candidate = reference.copy(), reference.copy()
    baseline[gained] = (baseline[gained] + 1) % 3
    candidate[lost] = (candidate[lost] + 1) % 3
    return Answers(LABELS, reference, baseline, candidate, baseline == reference, candidate == reference)


def compared(lost: list[int], gained: list[int], names: list[str], metric: str = "accuracy") -> ByUnit:
    task = registry.get(TASK)
    chosen = next(item for item in task.metrics_judged if item.name == metric)
    found = compared_of(task, chosen, answers(lost, gained, len(names)), Named("conversation", names))
    assert isinstance(found, ByUnit)
    return found


def test_rows_lost_together_widen_the_bounds_and_units_of_one_row_do_not() -> None:
    rows = 4000
    lost = list(range(40))
    together = compared(lost, [], [f"c{row // 10}" for row in range(rows)])
    apart = compared(lost, [], [f"c{(row * 7) % 1000}" for row in range(rows)])
    single = compared(lost, [], [f"c{row}" for row in range(rows)])
    assert together.drop_points == apart.drop_points == single.drop_points == pytest.approx(1.0)
    assert (together.units, apart.units, single.units) == (400, 1000, rows)
    upper = [item.drop_bounds(0.95)[1] for item in (together, apart, single)]
    assert upper[0] > upper[1] + 0.2
    assert upper[1] == pytest.approx(upper[2], abs=0.05)
    # 40 of 4,000 by themselves: a normal approximation is 1 + 1.645 × 0.157.
    assert upper[2] == pytest.approx(1.26, abs=0.06)


def test_no_unit_that_disagrees_is_no_certainty() -> None:
    found = compared([], [], [f"c{row // 5}" for row in range(5 * LEAST_UNITS)])
    assert found.drop_points == 0
    assert found.drop_bounds(0.95)[1] == pytest.approx(100 * (1 - 0.05 ** (1 / LEAST_UNITS)), rel=1e-6)
    assert found.candidate_bounds(0.95)[0] < 1


def test_macro_f1_needs_as_many_units_as_it_needs_rows() -> None:
    names = [f"c{row // 3}" for row in range(1500)]
    assert compared(list(range(10)), [], names).least_units == LEAST_UNITS
    assert compared(list(range(10)), [], names, "macro_f1").least_units == 1000


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("pattern", ["whole units", "sparse"])
def test_a_candidate_at_the_margin_passes_about_as_often_as_promised(pattern: str, uneven: bool) -> None:
    step, alone, by_row = rates(LEAST_UNITS, pattern, uneven=uneven, evaluations=60, resamples=200)
    assert step.passed <= 0.05 + 3 * (0.05 * 0.95 / 60) ** 0.5
    assert step.passed <= alone.passed
    if pattern == "whole units":
        assert by_row.passed + by_row.failed > 0.15, "rows that are counted one by one promise too much"


def make_lane(work: Path, checkpoint: Path, together: int) -> dict[str, Path]:
    """A lane of 1,800 rows in conversations of ``together`` rows; row 7 lacks the column ``thread``."""
    (work / "rows").mkdir()
    rows: list[dict[str, Any]] = [
        {"id": f"r:{n}", "text": f"text {n}", "label": LABELS[n % 3], "conversation": n // together, "thread": n}
        for n in range(1800)
    ]
    del rows[7]["thread"]
    dataset = Dataset(task=TASK, role=Role.EVALUATE, columns=["text", "label"], labels=LABELS, count=1800)
    write_rows(work / "rows", dataset, rows)
    lane = {
        "rows": work / "rows",
        "baseline": write_lane_predictions(work / "baseline", work / "rows", [0]),
        "candidate": write_lane_predictions(work / "candidate", work / "rows", [1, 2]),
        "measurements": write_lane_measurements(work / "measurements", lane_measurements()),
        "model": write_lane_model(work / "model", checkpoint),
    }
    return {**lane, "smoke": write_lane_smoke(work / "smoke", lane, "cpu")}


def judge(lane: dict[str, Path], work: Path, **policy: Any) -> LaneEvidence:
    outputs = gate.Outputs(verdict=work / "verdict", report=work / "report")
    for directory in (outputs.verdict, outputs.report):
        directory.mkdir()
    settings = gate.Settings(task=TASK, target="cpu", policy=gate.Policy(**policy))
    run(gate.Inputs(**lane), outputs, settings, SilentProgress())
    return LaneEvidence.model_validate_json((outputs.verdict / "verdict.json").read_bytes())


def test_the_step_judges_by_unit_and_says_so(tmp_path: Path, tiny_bert: Path) -> None:
    evidence = judge(make_lane(tmp_path, tiny_bert, 3), tmp_path, unit="conversation", max_drop_points=3)
    assert evidence.verdict is Verdict.PASS
    assert (evidence.units, evidence.mcnemar) == (600, None)
    assert "over units named by conversation" in evidence.method
    assert [check.name for check in evidence.checks[:3]] == ["max_drop_points", "min_units", "min_rows"]
    assert "2 lost and 1 gained of 1,800 rows in 600 units by conversation" in evidence.reasons[0]


def test_too_few_units_are_no_verdict_however_many_rows(tmp_path: Path, tiny_bert: Path) -> None:
    evidence = judge(make_lane(tmp_path, tiny_bert, 18), tmp_path, unit="conversation", max_drop_points=5)
    assert evidence.verdict is Verdict.INCONCLUSIVE
    assert evidence.reasons[0].startswith("The 1,800 evaluation rows are 100 units, where")
    assert "not judged on 100 units" in evidence.reasons[1]


def test_a_row_without_its_unit_is_named(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(DataError, match=r"column 'thread', which the evaluation row r:7 lacks"):
        judge(make_lane(tmp_path, tiny_bert, 3), tmp_path, unit="thread")


def test_slices_and_units_are_not_asked_for_together() -> None:
    recipe = {
        "name": "x",
        "task": TASK,
        "model": {"source": "package:a/b"},
        "data": {"source": "package:c"},
        "gate": {"unit": "conversation", "slices": {"by": "class"}},
    }
    with pytest.raises(RecipeError, match=r"gate\.unit names rows that belong together"):
        from_mapping(recipe, [], "recipe.yaml")


@pytest.mark.slow
@pytest.mark.figures
@pytest.mark.timeout(3600)
def test_the_error_rate_over_units_is_what_the_readme_says() -> None:
    lines = [
        "| units | of rows | pattern | passes | fails | BCa alone: passes | fails | Tango on rows: passes | fails |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for units in (200, 500):
        for uneven in (False, True):
            for pattern in PATTERNS:
                found = rates(units, pattern, uneven=uneven, evaluations=300, resamples=1000)
                cells = [f"{100 * share:.1f} %" for item in found for share in (item.passed, item.failed)]
                size = "1 to many" if uneven else "4"
                lines.append(f"| {units:,} | {size} | {pattern} | {' | '.join(cells)} |")
    is_in_readme("unit error rate", lines)
