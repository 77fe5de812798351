"""The search on a real, tiny model: the process that tries candidates, its death, and the journal."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lane_steps import Facts, choose_settings, fresh, run_apply
from modelmill.core.contract import JSON
from modelmill.core.errors import DataError, HardwareError
from modelmill.core.evidence import Cell
from modelmill.core.model import MicroBatching, read_model
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import Dataset, Role, write_rows
from modelmill.steps.calibrate_quantize import contract
from modelmill.steps.calibrate_quantize.run import choose
from modelmill.steps.calibrate_quantize.trial_asks import Ask, Job, Subject, Work
from modelmill.steps.calibrate_quantize.trials import TrialTable
from modelmill.steps.calibrate_quantize.variants import product_names
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
    run_apply(lane.optimized, tmp_path / "choice", lane.rows, tmp_path / "model")
    assert read_model(tmp_path / "model").precision == facts["precision"]
    assert not workers_of_this_process()


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
    ended, replayed = (tmp_path / "choice" / "choice.json").read_bytes(), Saving()
    search(lane_of("bert"), tmp_path, replayed)
    assert replayed.files == []
    assert (tmp_path / "choice" / "choice.json").read_bytes() == ended


def test_products_are_ranked_spared_and_batches_divided_in_the_process_that_tries(
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
        cells=[Cell(batch_size=1, sequence_length=8), Cell(batch_size=4, sequence_length=8)],
        seed=0,
    )
    whole = contract.Variant(precision=Precision.INT8, scheme=contract.Scheme.STATIC)
    with Workbench(job, fresh(tmp_path / "journal"), SilentProgress()) as bench:
        ranked = bench.ask(Ask(work=Work.RANK_PRODUCTS, subjects=[Subject(variant=whole)])).products
        assert list(ranked) == product_names(lane.optimized, pairs=False)
        worst = max(ranked, key=lambda name: ranked[name])
        assert ranked[worst] > 0
        spared = whole.model_copy(update={"keep_float": [name for name in ranked if name != worst]})
        alone = bench.ask(Ask(work=Work.SCREEN, subjects=[Subject(variant=spared)], seconds=0.01)).screened
        assert alone is not None
        assert alone.deviation == ranked[worst]
        divided = Subject(variant=whole, micro_batching=MicroBatching(max_tokens=0))
        ask = Ask(work=Work.TIME, subjects=[Subject(variant=whole), divided], seconds=0.01, single_rows=False)
        timed = bench.ask(ask).timed
    assert [[cell.name for cell in one.cells] for one in timed] == [["batch 4, length 8", "texts"]] * 2


def test_a_lanes_only_candidate_is_timed_judged_and_divided(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    lane, budget = lane_of("bert"), contract.Search(trials=3)
    only = {"runtime": Runtime.OPENVINO, "precisions": [Precision.FLOAT32]}
    progress = Saving()
    search(SimpleNamespace(optimized=lane.exported, rows=lane.rows), tmp_path, progress, search=budget, **only)
    trials = table(tmp_path).trials
    assert trials[0].name == "float32"
    assert trials[0].judged is not None
    assert [trial.micro_batching is not None for trial in trials] == [False, True, True]
    assert any("fastest so far: float32" in fact for fact in progress.facts)


def test_a_search_without_tune_rows_is_refused(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    lane = lane_of("bert")
    empty = fresh(tmp_path / "empty")
    write_rows(
        empty, Dataset(task="text-classification", role=Role.TUNE, columns=["text", "label"], labels=[], count=0), []
    )
    inputs = contract.ChooseInputs(model=lane.optimized, calibrate=lane.rows, tune=empty)
    outputs = contract.ChooseOutputs(fresh(tmp_path / "choice"), fresh(tmp_path / "journal"))
    with pytest.raises(DataError, match="no tune rows") as caught:
        choose(inputs, outputs, choose_settings(search=SHORT), SilentProgress())
    assert caught.value.where == "data.tune"
    assert caught.value.fix == "hold out a share (tune: 0.15), or set search: {trials: 0}"


def test_another_machine_than_the_declared_one_chooses_nothing(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="declares the hardware class cpu/other"):
        search(lane_of("bert"), tmp_path, Saving(), hardware_class="cpu/other")
