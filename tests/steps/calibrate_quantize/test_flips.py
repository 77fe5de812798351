"""Predictions that flip with their batch count against a candidate; the session is scripted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lane_steps import TASK, fresh, make_rows
from modelmill.core.evidence import Cell
from modelmill.steps.calibrate_quantize import trial_process
from modelmill.steps.calibrate_quantize.contract import Scheme, Variant
from modelmill.steps.calibrate_quantize.trial_asks import Ask, Job, Subject, Work
from modelmill.steps.calibrate_quantize.trial_process import Workshop, count_with_flips, spread
from modelmill.targets.base import Precision, Runtime

ROWS = 600


class Moody:
    """Says the first label; one that is not steady changes its mind where a text stands alone."""

    def __init__(self, steady: bool) -> None:
        self._steady = steady

    def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = len(batch["input_ids"])
        says = 0 if self._steady or rows > 1 else 1
        return {"logits": np.tile(2 * np.eye(3, dtype=np.float32)[says], (rows, 1))}


@pytest.mark.parametrize(("steady", "flips", "stands_for"), [(True, 0, 0.0), (False, 256, ROWS / 256)])
def test_rows_that_flip_are_counted_and_lost_in_their_share_of_all_rows(
    lane_of: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steady: bool,
    flips: int,
    stands_for: float,
) -> None:
    lane = lane_of("bert")

    def open_one(directory: Path, threads: int) -> Moody:
        return Moody(steady=steady or directory == lane.optimized)

    monkeypatch.setattr(trial_process, "open_session_of", lambda runtime: open_one)
    rows = make_rows(tmp_path / "rows", ROWS)
    job = Job(
        model=lane.optimized,
        calibrate=rows,
        tune=rows,
        task=TASK,
        runtime=Runtime.ONNXRUNTIME,
        threads=1,
        seed=0,
        cells=[Cell(batch_size=1, sequence_length=16)],
    )
    variant = Variant(precision=Precision.FLOAT32, scheme=Scheme.NONE)
    asked = Ask(work=Work.JUDGE, subjects=[Subject(variant=variant)])
    judged = Workshop(job, fresh(tmp_path / "work")).answer(asked).judged
    assert judged is not None
    # Every third row is of the first label, which both models say in the plan's batches.
    tried = sum(row % 3 == 0 for row in spread(ROWS, 256))
    assert (judged.neighbours, judged.flips, judged.gained) == (256, flips, 0)
    assert judged.lost == round(tried * stands_for)


def test_what_flips_among_the_rows_tried_is_taken_to_flip_among_all() -> None:
    before, right = np.ones(1000, bool), np.ones(1000, bool)
    right[:10] = False
    before[10:14] = False
    tried = np.arange(0, 1000, 4)
    changed = np.zeros(250, bool)
    assert count_with_flips(before, right, tried, changed) == (10, 4)
    # Row 0 is wrong anyway; row 12 was gained, and is no gain; rows 100 and 104 stand for eight.
    changed[[0, 3, 25, 26]] = True
    assert count_with_flips(before, right, tried, changed) == (18, 0)
