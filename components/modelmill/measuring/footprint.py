"""What a model takes alone: a fresh process that loads it, answers, and tells its time and its memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from modelmill.core import child
from modelmill.core.contract import Closed
from modelmill.core.errors import ModelmillError, StepKilledError
from modelmill.measuring.footprint_process import LoneRun
from modelmill.targets.base import Runtime
from modelmill.tasks.base import Batch

PROCESSES = 3


class Footprint(Closed):
    """What a model takes in processes of its own."""

    load_seconds: float = Field(
        description="from file to the first answer, median of the processes; imports are not in"
    )
    first_answer_seconds: float = Field(description="the part of it after loading, median of the processes")
    load_seconds_each: list[float] = Field(description="of each process")
    peak_rss_bytes: int = Field(description="largest of the processes")


def footprint(
    directory: Path,
    runtime: Runtime | None,
    batches: Sequence[Batch],
    threads: int,
    *,
    processes: int = PROCESSES,
    task: str = "",
) -> Footprint:
    """Load a model and run batches, each time in a fresh process; one with a runtime has no torch in it.

    Args:
        directory: The model artifact, or a checkpoint.
        runtime: Runs an artifact; None: PyTorch, which runs a checkpoint.
        batches: Padded batches, run once each in order; the first one ends the loading.
        threads: Threads within an operator.
        processes: How often.
        task: A checkpoint's.

    Raises:
        StepKilledError: A process was killed, by the memory limit as a rule.
        ModelmillError: A process failed though this one could run the model.
    """
    with tempfile.TemporaryDirectory(prefix="modelmill-footprint-") as folder:
        file = Path(folder) / "batches.npz"
        columns = {f"{number}/{name}": column for number, batch in enumerate(batches) for name, column in batch.items()}
        np.savez(file, allow_pickle=False, **columns)
        runs = [lone_run(directory, runtime, file, threads, task) for _ in range(processes)]
    return Footprint(
        load_seconds=round(statistics.median(run.load_seconds for run in runs), 4),
        first_answer_seconds=round(statistics.median(run.first_answer_seconds for run in runs), 4),
        load_seconds_each=[round(run.load_seconds, 4) for run in runs],
        peak_rss_bytes=max(run.peak_rss_bytes for run in runs),
    )


def lone_run(directory: Path, runtime: Runtime | None, batches: Path, threads: int, task: str = "") -> LoneRun:
    """One fresh process; ``batches`` is an ``.npz`` whose arrays are named ``number/input``.

    Raises:
        StepKilledError: The process was killed.
        ModelmillError: It failed.
    """
    command = [sys.executable, "-m", "modelmill.measuring.footprint_process"]
    done = subprocess.run(
        [*command, str(directory), runtime.value if runtime else "", str(batches), str(threads), task],
        env=child.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        what = f"the process that measures the model's memory was killed by signal {-done.returncode}"
        raise StepKilledError(what, where=str(directory), fix="give the step more memory, or measure smaller cells")
    if done.returncode > 0:
        what = f"the process that measures the model's memory failed: {(done.stderr.strip().splitlines() or [''])[-1]}"
        raise ModelmillError(what, where=str(directory), fix=f"run it by hand: {' '.join(command)} …")
    return LoneRun.model_validate_json(done.stdout)
