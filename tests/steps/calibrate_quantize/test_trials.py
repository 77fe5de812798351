"""The search on a real, tiny model: the process that tries candidates, its death, and the journal."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lane_steps import Facts, choose_settings, fresh, make_rows, run_apply
from modelmill.core.contract import JSON
from modelmill.core.errors import DataError, HardwareError
from modelmill.core.evidence import Cell
from modelmill.core.model import MicroBatching, read_model, write_model
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import Dataset, Role, write_rows
from modelmill.steps.calibrate_quantize import contract
from modelmill.steps.calibrate_quantize.run import choose
from modelmill.steps.calibrate_quantize.trial_asks import Ask, Job, Subject, Work
from modelmill.steps.calibrate_quantize.trials import TrialTable
from modelmill.steps.calibrate_quantize.workbench import Workbench
from modelmill.targets.base import Precision, Runtime

SHORT = contract.Search(trials=3)


class Saving(SilentProgress):
    """Notes what was made durable, and may do something then."""

    def __init__(self, then: Callable[[int], None] = lambda count: None) -> None:
        self.files: list[Path] = []
        self.facts: list[str] = []
        self._then = then

    def fact(self, text: str) -> None:
        self.facts.append(text)

    def saved(self, path: Path) -> None:
        self.files.append(path)
        self._then(len(self.files))


def search(lane: Any, place: Path, progress: SilentProgress, **changes: Any) -> Facts:
    settings = choose_settings(**{"search": SHORT, **changes})
    (place / "journal").mkdir(exist_ok=True, parents=True)
    outputs = contract.ChooseOutputs(fresh(place / f"choice-{time.monotonic_ns()}"), place / "journal")
    inputs = contract.ChooseInputs(model=lane.optimized, calibrate=lane.rows, tune=lane.rows)
    facts: dict[str, JSON] = dict(choose(inputs, outputs, settings, progress).facts)
    (place / "choice").unlink(missing_ok=True)
    (place / "choice").symlink_to(outputs.choice)
    return facts


def table(place: Path) -> TrialTable:
    return TrialTable.model_validate_json((place / "choice" / "trials.json").read_bytes())


def workers_of_this_process() -> list[int]:
    mine = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                words = (stat.parent / "cmdline").read_bytes()
                mine += [int(stat.parent.name)] if b"trial_process" in words else []
        except OSError:
            continue
    return mine


def test_a_search_ends_with_a_choice_that_can_be_applied(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    lane = lane_of("bert")
    facts = search(lane, tmp_path, Saving())
    found = table(tmp_path)
    assert [trial.name for trial in found.trials] == ["dynamic int8", "static int8", "float32"]
    assert all(trial.screened is not None and trial.failure is None for trial in found.trials)
    assert found.trials[found.chosen].judged is not None
    # Outputs of the model against itself: nothing moves.
    float32 = found.trials[2].screened
    assert float32 is not None
    assert float32.deviation == 0.0
    assert {"batch 1, length 16", "texts"} == {cell.name for cell in float32.timed.cells}
    assert table(tmp_path).checkpoint_bytes == (lane.checkpoint / "model.safetensors").stat().st_size
    assert table(tmp_path).reason == facts["reason"]
    run_apply(lane.optimized, tmp_path / "choice", lane.rows, tmp_path / "model")
    assert read_model(tmp_path / "model").precision == facts["precision"]
    assert not workers_of_this_process()


def test_size_is_held_against_the_checkpoint_and_not_against_float32_graphs(
    lane_of: Callable[[str], Any], tmp_path: Path
) -> None:
    lane = lane_of("bert")
    half = shutil.copytree(lane.optimized, tmp_path / "optimized")
    document = read_model(half)
    size = int(str(document.facts["checkpoint_bytes"])) // 2
    write_model(half, document.model_copy(update={"facts": {**document.facts, "checkpoint_bytes": size}}))
    search(replace(lane, optimized=half), tmp_path / "x", Saving(), bound=contract.Bound(max_size_ratio=0.9))
    found = table(tmp_path / "x")
    (float32,) = [row for row in found.rows() if row.name == "float32"]
    assert float32.passes is False
    assert float32.failure is not None
    assert "of the checkpoint's" in float32.failure


@pytest.mark.parametrize(("most", "neighbours"), [(0, 90), (None, 64)])
def test_as_many_rows_as_the_gate_tries_stand_beside_others_where_flips_are_bounded(
    lane_of: Callable[[str], Any], tmp_path: Path, most: int | None, neighbours: int
) -> None:
    lane = replace(lane_of("bert"), rows=make_rows(tmp_path / "rows", 90))
    search(lane, tmp_path / "x", Saving(), bound=contract.Bound(max_batch_flips=most), search=contract.Search(trials=2))
    found = table(tmp_path / "x")
    assert {trial.judged.neighbours for trial in found.trials if trial.judged is not None} == {neighbours}


def test_finalists_are_timed_against_each_other_in_the_same_rounds(
    lane_of: Callable[[str], Any], tmp_path: Path
) -> None:
    lane = lane_of("bert")
    job = Job(
        model=lane.optimized,
        calibrate=lane.rows,
        tune=lane.rows,
        task="text-classification",
        runtime=Runtime.ONNXRUNTIME,
        threads=1,
        cells=[Cell(batch_size=1, sequence_length=16)],
        seed=0,
    )
    plain = contract.Variant(precision=Precision.FLOAT32, scheme=contract.Scheme.NONE)
    divided = MicroBatching(max_tokens=0)
    subjects = [Subject(variant=plain), Subject(variant=plain, micro_batching=divided)]
    with Workbench(job, fresh(tmp_path / "journal"), SilentProgress()) as bench:
        answer = bench.ask(Ask(work=Work.TIME, subjects=subjects, seconds=0.2))
    whole, row_by_row = (timed.gain for timed in answer.timed)
    assert [answer.faster[0][0], answer.faster[1][1]] == [(1.0, 1.0), (1.0, 1.0)]
    low, high = answer.faster[0][1]
    assert low <= whole / row_by_row <= high
    assert answer.faster[1][0] == pytest.approx((1 / high, 1 / low))


def test_a_candidate_that_kills_its_process_is_named_and_the_next_is_tried(
    lane_of: Callable[[str], Any], tmp_path: Path
) -> None:
    def kill_the_second(count: int) -> None:
        if count == 1:
            (worker,) = workers_of_this_process()
            # Once the next ask is on its way.
            threading.Timer(0.2, os.kill, (worker, signal.SIGKILL)).start()

    progress = Saving(kill_the_second)
    search(lane_of("bert"), tmp_path, progress)
    failures = [trial.failure for trial in table(tmp_path).trials]
    assert failures == [None, "it died of SIGKILL", None]
    assert any("static int8 failed: it died of SIGKILL" in fact for fact in progress.facts)


def test_a_killed_searchs_successor_asks_nothing_again(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def die_after_two(count: int) -> None:
        if count == 2:
            raise Killed

    with pytest.raises(Killed):
        search(lane_of("bert"), tmp_path, Saving(die_after_two))
    kept = {file.name: file.read_bytes() for file in (tmp_path / "journal").glob("*.json")}
    again = Saving()
    search(lane_of("bert"), tmp_path, again)
    assert {name: (tmp_path / "journal" / name).read_bytes() for name in kept} == kept
    assert len(kept) == 2
    assert not {file.name for file in again.files} & set(kept)


def test_a_search_without_tune_rows_is_refused(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    lane = lane_of("bert")
    empty = fresh(tmp_path / "empty")
    write_rows(
        empty, Dataset(task="text-classification", role=Role.TUNE, columns=["text", "label"], labels=[], count=0), []
    )
    inputs = contract.ChooseInputs(model=lane.optimized, calibrate=lane.rows, tune=empty)
    outputs = contract.ChooseOutputs(fresh(tmp_path / "choice"), fresh(tmp_path / "journal"))
    with pytest.raises(DataError, match="no tune rows"):
        choose(inputs, outputs, choose_settings(search=SHORT), SilentProgress())


def test_another_machine_than_the_declared_one_chooses_nothing(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="declares the hardware class cpu/other"):
        search(lane_of("bert"), tmp_path, Saving(), hardware_class="cpu/other")
