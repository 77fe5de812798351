"""The search on a real, tiny model: the process that tries candidates, its death, and the journal."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from lane_steps import TASK, Facts, choose_settings, fresh, run_apply
from modelmill.core import child, temporary
from modelmill.core.contract import JSON
from modelmill.core.errors import DataError, HardwareError, ModelError, RecipeError, StepKilledError
from modelmill.core.evidence import Cell
from modelmill.core.memory import rss_bytes
from modelmill.core.model import MicroBatching, read_model, write_model
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import Dataset, Role, write_rows
from modelmill.steps.calibrate_quantize import contract, trial_process, workbench
from modelmill.steps.calibrate_quantize.contract import Scheme
from modelmill.steps.calibrate_quantize.run import choose
from modelmill.steps.calibrate_quantize.trial_asks import Ask, Job, Subject, Work
from modelmill.steps.calibrate_quantize.trial_process import Workshop
from modelmill.steps.calibrate_quantize.trials import TrialTable
from modelmill.steps.calibrate_quantize.variants import make_variant, product_names
from modelmill.steps.calibrate_quantize.workbench import Entry, Workbench
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


def job_of(lane: Any, **changes: Any) -> Job:
    cells = [Cell(batch_size=1, sequence_length=16)]
    job = Job(model=lane.optimized, calibrate=lane.rows, tune=lane.rows, task=TASK, runtime=Runtime.ONNXRUNTIME,
              threads=2, cells=cells, seed=0)  # fmt: skip
    return job.model_copy(update=changes)


def ask_of(work: Work, **variant: Any) -> Ask:
    asked = contract.Variant.model_validate({"precision": Precision.INT8, "scheme": Scheme.DYNAMIC, **variant})
    return Ask(work=work, subjects=[Subject(variant=asked)])


def journal_of(place: Path) -> list[Entry]:
    return [Entry.model_validate_json(file.read_bytes()) for file in sorted((place / "journal").glob("*.json"))]


def command_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def workers_of(parent: int) -> list[int]:
    mine = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if stat.read_text().rpartition(")")[2].split()[1] == str(parent):
                words = (stat.parent / "cmdline").read_bytes()
                mine += [int(stat.parent.name)] if b"trial_process" in words else []
        except OSError:
            continue
    return mine


def workers_of_this_process() -> list[int]:
    return workers_of(os.getpid())


def folder_of(worker: int) -> Path:
    return Path(Path(f"/proc/{worker}/cmdline").read_text("utf-8").split("\0")[3]).parent


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


class Killer:
    """Kills a worker once it makes the first of some folders, the next worker once it makes the second, and so on."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders, self._killed = folders, set[int]()
        self._thread = threading.Thread(target=self._kill, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _kill(self) -> None:
        for folder in self._folders:
            wait_until(lambda folder=folder: self._kills_one_with(folder))  # type: ignore[misc]

    def _kills_one_with(self, folder: str) -> bool:
        for worker in set(workers_of_this_process()) - self._killed:
            # It may be gone, or not have its command line yet.
            with suppress(OSError, IndexError):
                if (folder_of(worker) / folder).is_dir():
                    os.kill(worker, signal.SIGKILL)
                    self._killed.add(worker)
                    return True
        return False


def kill_between_asks() -> None:
    (worker,) = workers_of_this_process()
    os.kill(worker, signal.SIGKILL)
    os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)


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
    # Nor is it faster than itself by how its memory came to lie.
    assert [(cell.gain, cell.gain_ci) for cell in float32.timed.cells] == [(1.0, (1.0, 1.0))] * 2
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


def test_finalists_are_timed_against_each_other_in_the_same_rounds(
    lane_of: Callable[[str], Any], tmp_path: Path
) -> None:
    lane = lane_of("bert")
    plain = contract.Variant(precision=Precision.FLOAT32, scheme=contract.Scheme.NONE)
    divided = MicroBatching(max_tokens=0)
    subjects = [Subject(variant=plain), Subject(variant=plain, micro_batching=divided)]
    with Workbench(job_of(lane), fresh(tmp_path / "journal"), SilentProgress(), 60) as bench:
        answer = bench.ask(Ask(work=Work.TIME, subjects=subjects, seconds=0.2))
    whole, row_by_row = (timed.gain for timed in answer.timed)
    assert [answer.faster[0][0], answer.faster[1][1]] == [(1.0, 1.0), (1.0, 1.0)]
    low, high = answer.faster[0][1]
    assert low <= whole / row_by_row <= high
    assert answer.faster[1][0] == pytest.approx((1 / high, 1 / low))


def test_a_candidate_that_kills_its_process_is_named_and_the_next_is_tried(
    lane_of: Callable[[str], Any], tmp_path: Path
) -> None:
    # The second folder of the first worker, and the first of the next one: while static int8 is tried.
    killer = Killer(["0002", "0001"])
    progress = Saving(lambda count: killer.start() if count == 1 else None)
    facts = search(lane_of("bert"), tmp_path, progress)
    failures = [trial.failure for trial in table(tmp_path).trials]
    assert failures == [None, "it died of SIGKILL", None]
    assert any("static int8 failed: it died of SIGKILL" in fact for fact in progress.facts)
    assert facts["seconds"] == pytest.approx(sum(entry.answer.seconds for entry in journal_of(tmp_path)), abs=0.01)
    # A start that comes to nothing is not free.
    assert journal_of(tmp_path)[1].answer.seconds > 1


def test_a_death_by_anothers_hand_is_not_the_candidates(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    killer = Killer(["0002"])
    progress = Saving(lambda count: killer.start() if count == 1 else None)
    search(lane_of("bert"), tmp_path, progress)
    assert [trial.failure for trial in table(tmp_path).trials] == [None, None, None]
    assert "the process that tries candidates died of SIGKILL; it is started and asked again" in progress.facts


def test_a_death_between_asks_is_not_the_next_candidates(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    # What comes up next is killed as it starts, too.
    killer = Killer([""])

    def kill_the_idle(count: int) -> None:
        if count == 1:
            kill_between_asks()
            killer.start()

    progress = Saving(kill_the_idle)
    search(lane_of("bert"), tmp_path, progress)
    assert [trial.failure for trial in table(tmp_path).trials] == [None, None, None]
    assert "the process that tries candidates died of SIGKILL as it started; it is started again" in progress.facts


def test_a_process_that_is_killed_before_it_comes_up_may_be_run_again(
    lane_of: Callable[[str], Any], tmp_path: Path
) -> None:
    killer = Killer([""])
    killer.start()
    with pytest.raises(StepKilledError, match="died of SIGKILL before it could try any") as caught:
        search(lane_of("bert"), tmp_path, Saving())
    assert caught.value.exit_code == 5
    assert caught.value.fix
    assert not workers_of_this_process()


def test_a_broken_model_is_named_by_what_broke(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    lane = lane_of("bert")
    shutil.copytree(lane.optimized, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    with Workbench(job_of(lane, model=tmp_path / "model"), fresh(tmp_path / "one"), SilentProgress(), 60) as bench:
        with pytest.raises(ModelError, match="the unquantized model cannot be tried: ") as caught:
            bench.ask(ask_of(Work.LIST_PRODUCTS))
        assert caught.value.fix
    shutil.copytree(lane.optimized, tmp_path / "model", dirs_exist_ok=True)
    # ONNX Runtime's own error, which is none of ours.
    (tmp_path / "model" / "model.onnx").write_bytes(b"torn")
    with Workbench(job_of(lane, model=tmp_path / "model"), fresh(tmp_path / "two"), SilentProgress(), 60) as bench:
        with pytest.raises(ModelError, match="the unquantized model cannot be tried: ") as caught:
            bench.ask(ask_of(Work.LIST_PRODUCTS))
        assert "SIG" not in caught.value.what
        assert caught.value.fix


def test_a_candidate_that_hangs_is_given_up_and_its_time_counts(
    lane_of: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.monotonic()
    with Workbench(job_of(lane_of("bert")), tmp_path, SilentProgress(), 0.1) as bench:
        assert bench.ask(ask_of(Work.LIST_PRODUCTS)).products
        (worker,) = workers_of_this_process()
        os.kill(worker, signal.SIGSTOP)
        monkeypatch.setattr(workbench, "LEAST_SECONDS", 1.0)
        assert bench.ask(ask_of(Work.COMPARE)).failure == "it gave no answer in 1 seconds"
        monkeypatch.undo()
        assert bench.ask(ask_of(Work.JUDGE)).judged is not None
        assert bench.seconds == pytest.approx(time.monotonic() - begun, abs=1.0)
    assert not workers_of_this_process()


@pytest.mark.parametrize(
    ("work", "budget", "spent", "limit"),
    [
        (Work.SCREEN, 300.0, 0.0, 600.0),
        (Work.SCREEN, 300.0, 250.0, 100.0),
        (Work.SCREEN, 300.0, 400.0, 60.0),
        (Work.COMPARE, 300.0, 400.0, 60.0),
        (Work.JUDGE, 300.0, 400.0, 300.0),
        (Work.TIME, 10.0, 10.0, 60.0),
    ],
)
def test_an_ask_is_bounded_by_what_is_left_of_the_budget(
    work: Work, budget: float, spent: float, limit: float, lane_of: Callable[[str], Any], tmp_path: Path
) -> None:
    bench = Workbench(job_of(lane_of("bert")), tmp_path, SilentProgress(), budget)
    bench.seconds = spent
    assert bench.limit(ask_of(work)) == limit


SEARCHES = """
import sys
from pathlib import Path
from modelmill.core.progress import SilentProgress
from modelmill.steps.calibrate_quantize.trial_asks import Ask, Job
from modelmill.steps.calibrate_quantize.workbench import Workbench
job, ask, journal = sys.argv[1:]
with Workbench(Job.model_validate_json(job), Path(journal), SilentProgress(), 300.0) as bench:
    bench.ask(Ask.model_validate_json(ask))
"""


def test_a_killed_search_takes_its_process_with_it_and_the_next_start_its_folder(
    lane_of: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary_folder = fresh(tmp_path / "tmp")
    long = ask_of(Work.TIME).model_copy(update={"seconds": 600.0})
    arguments = [job_of(lane_of("bert")).model_dump_json(), long.model_dump_json(), str(fresh(tmp_path / "journal"))]
    environment = {**child.environment(), "TMPDIR": str(temporary_folder)}
    with subprocess.Popen([sys.executable, "-c", SEARCHES, *arguments], env=environment) as searching:

        def timing() -> bool:
            return any((folder_of(worker) / "0001" / "model.json").exists() for worker in workers_of(searching.pid))

        wait_until(timing)
        (worker,) = workers_of(searching.pid)
        # By now it times, for ten minutes.
        time.sleep(1)
        searching.kill()
        searching.wait()
        # A zombie, where nobody adopts it, computes nothing.
        wait_until(lambda: not command_of(worker), 5.0)
    assert [path.name.startswith("modelmill-trials-") for path in temporary_folder.iterdir()] == [True]
    monkeypatch.setattr(tempfile, "tempdir", str(temporary_folder))
    with temporary.folder("next"):
        assert [path.name.startswith("modelmill-next-") for path in temporary_folder.iterdir()] == [True]


def test_products_are_listed_and_compared_one_by_one(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    with Workbench(job_of(lane_of("bert")), tmp_path, SilentProgress(), 60.0) as bench:
        names = bench.ask(ask_of(Work.LIST_PRODUCTS)).products
        whole = bench.ask(ask_of(Work.COMPARE)).deviation
        alone = bench.ask(ask_of(Work.COMPARE, keep_float=names[1:])).deviation
    assert len(names) == len(set(names)) > 8
    assert whole is not None
    assert alone is not None
    assert 0 < alone < whole


def test_outputs_that_are_not_finite_are_told_as_such(
    lane_of: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_broken(model: Path, calibrate: Path, output: Path, *others: Any) -> None:
        make_variant(model, calibrate, output, *others)
        graph = onnx.load(output / "model.onnx")
        scale = next(item for item in graph.graph.initializer if item.name.endswith("scale"))
        broken = onnx.numpy_helper.from_array(np.full_like(onnx.numpy_helper.to_array(scale), np.inf), scale.name)
        scale.CopyFrom(broken)
        onnx.save(graph, output / "model.onnx")

    workshop = Workshop(job_of(lane_of("bert")), tmp_path)
    monkeypatch.setattr(trial_process, "make_variant", make_broken)
    for work in (Work.SCREEN, Work.COMPARE):
        with pytest.raises(ModelError, match="its outputs are not finite"):
            workshop.answer(ask_of(work))
    with pytest.raises(ModelError, match="the model's outputs for a row are not finite"):
        workshop.answer(ask_of(Work.JUDGE))


def test_a_candidate_that_fails_leaves_no_folder(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    workshop = Workshop(job_of(lane_of("bert")), tmp_path)
    for _ in range(2):
        with pytest.raises(ModelError, match="no such product"):
            workshop.answer(ask_of(Work.COMPARE, keep_float=["model/none"]))
    assert not list(tmp_path.iterdir())


def test_what_a_search_holds_does_not_count_against_a_calibrations_memory(
    lane_of: Callable[[str], Any], tmp_path: Path
) -> None:
    workshop = Workshop(job_of(lane_of("bert")), tmp_path)
    ballast = np.ones(300_000_000, np.uint8)
    most = rss_bytes() - 20_000_000
    static = {"scheme": Scheme.STATIC, "max_calibration_rss_bytes": most}
    assert workshop.answer(ask_of(Work.COMPARE, **static)).deviation
    assert rss_bytes() > most > ballast.nbytes
    with pytest.raises(RecipeError, match=r"calibrating takes .* with the loaded model") as caught:
        workshop.answer(ask_of(Work.COMPARE, **{**static, "max_calibration_rss_bytes": 50_000_000}))
    assert caught.value.where == "search.max_calibration_rss_bytes"
    assert [path.name for path in tmp_path.iterdir()] == ["0001"]


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
    cells = [Cell(batch_size=1, sequence_length=8), Cell(batch_size=4, sequence_length=8)]
    whole = contract.Variant(precision=Precision.INT8, scheme=contract.Scheme.STATIC)
    with Workbench(job_of(lane, cells=cells, threads=1), fresh(tmp_path / "journal"), SilentProgress(), 60) as bench:
        names = bench.ask(Ask(work=Work.LIST_PRODUCTS, subjects=[Subject(variant=whole)])).products
        assert names == product_names(lane.optimized, pairs=False)

        def alone_int8(name: str) -> contract.Variant:
            return whole.model_copy(update={"keep_float": [other for other in names if other != name]})

        ranked = {
            name: bench.ask(Ask(work=Work.COMPARE, subjects=[Subject(variant=alone_int8(name))])).deviation or 0.0
            for name in names
        }
        worst = max(ranked, key=lambda name: ranked[name])
        assert ranked[worst] > 0
        spared = alone_int8(worst)
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
