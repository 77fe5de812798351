"""The candidate against what the channel serves: judged on the same rows, told where there is nothing to judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lane_artifacts import (
    LABELS,
    TASK,
    lane_measurements,
    write_lane_measurements,
    write_lane_model,
    write_lane_predictions,
    write_lane_rows,
    write_lane_smoke,
)
from modelmill.core.errors import RecipeError
from modelmill.core.evidence import Check, LaneEvidence, Verdict
from modelmill.core.predictions import array_of
from modelmill.core.progress import SilentProgress
from modelmill.core.served import Opponent, Served, Standing
from modelmill.measuring.noninferiority import drop_bounds
from modelmill.steps.gate import contract as gate
from modelmill.steps.gate.run import run

CHAMPION, REFERENCE = Opponent.CHAMPION, Opponent.REFERENCE
ROWS = 1500
DIGEST = "sha256:" + "a" * 64


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Path]:
    """A lane whose baseline is right on all rows but one. Read-only but for ``candidate``."""
    work = tmp_path_factory.mktemp("against")
    rows = write_lane_rows(work / "rows", ROWS)
    return {
        "rows": rows,
        "baseline": write_lane_predictions(work / "baseline", rows, [0]),
        "measurements": write_lane_measurements(work / "measurements", lane_measurements()),
        "model": write_lane_model(work / "model", tiny_bert),
    }


def judge(
    lane: dict[str, Path], work: Path, wrong: list[int], served: dict[Opponent, tuple[Served, list[int]]], **policy: Any
) -> LaneEvidence:
    """Judge a candidate that is wrong on some rows, held against opponents that are wrong on theirs."""
    candidate = write_lane_predictions(work / "candidate", lane["rows"], wrong)
    document = json.loads((candidate / "predictions.json").read_text("utf-8"))
    reference = np.load(candidate / "reference.npy")
    for opponent, (found, theirs) in served.items():
        document["served"][opponent] = found.model_dump(mode="json")
        if found.standing is Standing.PREDICTED:
            predicted = reference.copy()
            predicted[theirs] = (predicted[theirs] + 1) % len(LABELS)
            np.save(candidate / f"{array_of(opponent)}.npy", predicted)
            document["arrays"].append(array_of(opponent))
    (candidate / "predictions.json").write_text(json.dumps(document), "utf-8")
    outputs = gate.Outputs(verdict=work / "verdict", report=work / "report")
    for directory in (outputs.verdict, outputs.report):
        directory.mkdir()
    settings = gate.Settings(task=TASK, target="cpu-int8", policy=gate.Policy(max_drop_points=5, **policy))
    smoke = write_lane_smoke(work / "smoke", {**lane, "candidate": candidate}, "cpu-int8")
    run(gate.Inputs(**lane, candidate=candidate, smoke=smoke), outputs, settings, SilentProgress())
    return LaneEvidence.model_validate_json((outputs.verdict / "verdict.json").read_bytes())


def check_of(evidence: LaneEvidence, opponent: Opponent) -> Check:
    return next(check for check in evidence.checks if check.name == f"max_drop_vs_{opponent.value}_points")


def predicted(**found: Any) -> Served:
    return Served(standing=Standing.PREDICTED, bundle=DIGEST, **found)


@pytest.mark.parametrize(
    ("champion", "verdict"),
    [(range(40), Verdict.PASS), (range(20, 30), Verdict.FAIL), (range(0, 34, 1), Verdict.PASS)],
)
def test_the_champion_is_held_against_by_the_method_of_the_baseline(
    lane: dict[str, Path], tmp_path: Path, champion: range, verdict: Verdict
) -> None:
    wrong = list(range(40))
    evidence = judge(lane, tmp_path, wrong, {CHAMPION: (predicted(), list(champion))}, max_drop_vs_champion_points=1.0)
    check, told = check_of(evidence, CHAMPION), evidence.against[CHAMPION]
    lost, gained = len(set(wrong) - set(champion)), len(set(champion) - set(wrong))
    assert (told.lost, told.gained, told.value) == (lost, gained, 1 - len(champion) / ROWS)
    low, high = (100 * float(bound) for bound in drop_bounds(lost, gained, ROWS, 0.95))
    assert told.drop_points_ci == pytest.approx((low, high))
    assert check.interval == told.drop_points_ci
    assert check.verdict is evidence.verdict is verdict
    assert "The drop of accuracy against the champion is at " in check.words


def test_small_losses_that_each_champion_allows_are_stopped_by_the_reference(
    lane: dict[str, Path], tmp_path: Path
) -> None:
    served = {CHAMPION: (predicted(), list(range(32))), REFERENCE: (predicted(), [])}
    evidence = judge(
        lane,
        tmp_path,
        list(range(36)),
        served,
        max_drop_vs_champion_points=1.0,
        max_drop_vs_reference_points=1.5,
    )
    assert check_of(evidence, CHAMPION).verdict is Verdict.PASS
    assert check_of(evidence, REFERENCE).verdict is Verdict.FAIL
    assert evidence.reasons[0].startswith("The drop of accuracy against the reference is at least")


def test_an_opponent_is_told_where_no_bound_is_asked(lane: dict[str, Path], tmp_path: Path) -> None:
    evidence = judge(lane, tmp_path, [1, 2], {CHAMPION: (predicted(), [])})
    assert evidence.against[CHAMPION].drop_points == pytest.approx(200 / ROWS)
    assert not [check for check in evidence.checks if "champion" in check.name]


@pytest.mark.parametrize(
    ("opponent", "standing", "verdict", "words"),
    [
        (CHAMPION, Standing.NONE, Verdict.PASS, "there is no champion to be held against"),
        (REFERENCE, Standing.NONE, Verdict.PASS, "modelmill channel reference pins one"),
        (CHAMPION, Standing.ABSENT, Verdict.PASS, "serves nothing for this target yet"),
        (REFERENCE, Standing.ABSENT, Verdict.INCONCLUSIVE, "Pin another bundle"),
        (CHAMPION, Standing.GONE, Verdict.INCONCLUSIVE, "leave gate.max_drop_vs_champion_points out of one run"),
        (REFERENCE, Standing.GONE, Verdict.INCONCLUSIVE, "The bound is not shown to hold"),
        (CHAMPION, Standing.UNLIKE, Verdict.INCONCLUSIVE, "Promote another bundle by hand"),
        (CHAMPION, Standing.SAME, Verdict.PASS, "byte for byte"),
    ],
)
def test_nothing_there_yet_passes_and_what_cannot_be_compared_stays_open(
    lane: dict[str, Path], tmp_path: Path, opponent: Opponent, standing: Standing, verdict: Verdict, words: str
) -> None:
    found = Served(standing=standing, problem="for a reason")
    bound = {f"max_drop_vs_{opponent.value}_points": 0.001}
    evidence = judge(lane, tmp_path, [1], {opponent: (found, [])}, **bound)
    check = check_of(evidence, opponent)
    assert check.verdict is evidence.verdict is verdict
    assert words in check.words
    assert words in (tmp_path / "report" / "report.html").read_text("utf-8")
    assert (check.value is None) is (standing is not Standing.SAME)


def test_a_bound_on_what_evaluate_was_not_asked_for_is_an_error(lane: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="say nothing of the champion"):
        judge(lane, tmp_path, [1], {}, max_class_shift_vs_published=0.1)


def test_macro_f1_is_held_against_the_champion_by_the_bootstrap(lane: dict[str, Path], tmp_path: Path) -> None:
    evidence = judge(
        lane,
        tmp_path,
        list(range(40)),
        {CHAMPION: (predicted(), list(range(20)))},
        metric="macro_f1",
        max_drop_vs_champion_points=3.0,
    )
    told = evidence.against[CHAMPION]
    assert told.value == pytest.approx(1 - 20 / ROWS, abs=1e-3)
    assert told.drop_points == pytest.approx(100 * 20 / ROWS, abs=0.05)
    assert told.drop_points_ci is not None
    assert told.drop_points_ci[0] < 100 * 20 / ROWS < told.drop_points_ci[1]
    assert check_of(evidence, CHAMPION).verdict is Verdict.PASS


PUBLISHED = {"alpha": 1000, "beta": 400, "gamma": 100}


@pytest.mark.parametrize(("most", "verdict"), [(0.1, Verdict.FAIL), (0.4, Verdict.PASS)])
def test_classes_are_held_against_those_of_what_is_served(
    lane: dict[str, Path], tmp_path: Path, most: float, verdict: Verdict
) -> None:
    served = {CHAMPION: (predicted(classes=PUBLISHED), [])}
    evidence = judge(lane, tmp_path, [1], served, max_class_shift_vs_published=most)
    check = next(check for check in evidence.checks if check.name == "max_class_shift_vs_published")
    assert check.verdict is evidence.verdict is verdict
    assert check.words.startswith("The evaluation rows' classes lie 0.333 from those of what the channel serves")
    assert evidence.rows_found is not None
    assert evidence.rows_found.published_shift["evaluate"].distance == pytest.approx(1 / 3)


def test_classes_without_anything_published_pass_and_untold_ones_stay_open(
    lane: dict[str, Path], tmp_path: Path
) -> None:
    for found, verdict in ((Served(standing=Standing.NONE), Verdict.PASS), (predicted(), Verdict.INCONCLUSIVE)):
        work = tmp_path / found.standing.name
        evidence = judge(lane, work, [1], {CHAMPION: (found, [])}, max_class_shift_vs_published=0.1)
        assert evidence.verdict is verdict
