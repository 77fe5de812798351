from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from modelmill.core import child
from modelmill.core.errors import ModelError, StepKilledError
from modelmill.core.evidence import Cell
from modelmill.core.progress import SilentBar, SilentProgress
from modelmill.measuring.models import open_artifact
from modelmill.measuring.texts import write_texts
from modelmill.measuring.timer import Timer
from modelmill.measuring.timing import TimingProcess, time_models
from modelmill.measuring.timing_asks import Ask, CellWork, Job, Opened, TextsWork, TimedModel, Work
from modelmill.targets.base import Runtime, Session
from tiny_artifacts import random_rows

CELL = CellWork(cell=Cell(batch_size=1, sequence_length=16))


def job_of(**paths: Path) -> Job:
    models = [
        TimedModel(name=name, path=path, runtime=Runtime.ONNXRUNTIME, task="text-classification")
        for name, path in paths.items()
    ]
    return Job(models=models, threads=1, seed=0)


def ask(work: Work = CELL, seconds: float = 0.3, part: int = 0, parts: int = 1) -> Ask:
    return Ask(work=work, seconds=seconds, part=part, parts=parts)


def test_fresh_processes_share_the_rounds_and_the_budget(exported: Path, quantized: Path) -> None:
    seen: list[Mapping[str, Opened]] = []

    def works(opened: Mapping[str, Opened]) -> list[Work]:
        seen.append(opened)
        return [CELL]

    opened, (timed,) = time_models(
        job_of(one=exported, two=quantized), works, processes=2, seconds=1.0, progress=SilentProgress()
    )
    assert seen == [opened]
    assert opened["one"].max_length == 64
    assert [sorted(rounds.seconds) for rounds in timed.processes] == [["one", "two"]] * 2
    assert [rounds.count >= 4 for rounds in timed.processes] == [True, True]
    assert timed.count == sum(rounds.count for rounds in timed.processes)
    # Other rounds, in another order: no process repeats the other's numbers.
    assert timed.processes[0].milliseconds("one") != timed.processes[1].milliseconds("one")


class TokenClock:
    """A model's session, and a clock that only its answers advance: by 10 µs for each token, padding included."""

    def __init__(self, session: Session) -> None:
        self._session, self._now = session, 0.0

    def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._now += 1e-5 * batch["input_ids"].size
        return self._session.run(batch)

    def __call__(self) -> float:
        return self._now


def test_processes_divide_a_pass_over_texts_and_each_tells_the_whole_ones_time(exported: Path, tmp_path: Path) -> None:
    model = open_artifact(exported, Runtime.ONNXRUNTIME, threads=1)
    clock = TokenClock(model.session)
    timer = Timer(job_of(one=exported), clock=clock)
    timer._models["one"] = dataclasses.replace(model, session=clock)
    work = TextsWork(rows=write_texts(random_rows(240), tmp_path), single=False)
    whole = timer.answer(ask(work, 0.5), SilentBar())
    parts = [timer.answer(ask(work, 0.5, part, 3), SilentBar()) for part in range(3)]
    assert whole.passes >= 1
    assert sum(part.passes for part in parts) >= 0.99
    for part in parts:
        assert np.mean(part.seconds["one"]) == pytest.approx(np.mean(whole.seconds["one"]), rel=1e-6)


def test_a_model_that_is_the_same_as_another_shares_its_session(exported: Path) -> None:
    job = job_of(one=exported)
    job.models.append(job.models[0].model_copy(update={"name": "one again", "same_as": "one"}))
    timer = Timer(job)
    assert timer._models["one again"] is timer._models["one"]
    assert sorted(timer.answer(ask(), SilentBar()).seconds) == ["one", "one again"]


def test_a_model_that_crashes_its_runtime_is_named(exported: Path) -> None:
    with TimingProcess(job_of(one=exported, two=exported)) as process:
        process.opened()
        threading.Timer(0.5, os.kill, (process.pid, signal.SIGSEGV)).start()
        with pytest.raises(ModelError, match=r"died of SIGSEGV at the model (one|two)") as caught:
            process.answer(ask(seconds=60), SilentBar())
    assert caught.value.where == str(exported)


def test_a_process_that_is_killed_is_an_error_that_may_be_tried_again(exported: Path) -> None:
    with TimingProcess(job_of(one=exported)) as process:
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(StepKilledError, match="process that times models was killed"):
            process.opened()


def test_a_broken_model_is_the_error_that_it_is_here(exported: Path, tmp_path: Path) -> None:
    with TimingProcess(job_of(one=exported, broken=tmp_path)) as process, pytest.raises(ModelError) as caught:
        process.opened()
    assert "this is no model artifact" in caught.value.what
    assert caught.value.where == str(tmp_path)
    assert caught.value.fix == "give the directory that an export step wrote"


PARENT = """
import sys
from pathlib import Path
from modelmill.core.progress import SilentBar
from modelmill.measuring.timing import TimingProcess
from modelmill.measuring.timing_asks import Ask, Job
job, ask = Job.model_validate_json(sys.argv[1]), Ask.model_validate_json(sys.argv[2])
with TimingProcess(job) as process:
    process.opened()
    print(process.pid, flush=True)
    process.answer(ask, SilentBar())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_however_the_parent_ends_the_process_that_times_ends_too(exported: Path, number: signal.Signals) -> None:
    arguments = [job_of(one=exported).model_dump_json(), ask(seconds=300).model_dump_json()]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments],
        env=child.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.send_signal(number)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and _state(pid) != "Z" and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or _state(pid) == "Z"


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
