"""The process that `modelmill.measuring.footprint` starts: it loads one model, runs batches, and tells what it took.

With a runtime it imports nothing of torch or transformers: a process that serves does the same.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import Field

from modelmill.core.contract import Closed
from modelmill.core.errors import ModelmillError
from modelmill.core.memory import peak_rss_bytes
from modelmill.targets.base import Runtime, Session
from modelmill.targets.registry import open_session_of
from modelmill.tasks import registry


class LoneRun(Closed):
    """One process."""

    load_seconds: float = Field(description="from file to the first answer")
    first_answer_seconds: float = Field(description="the part of it that the first answer took, once loaded")
    peak_rss_bytes: int
    modules: list[str] = Field(description="top-level modules that were loaded")


def run_alone(directory: Path, runtime: Runtime | None, batches: Path, threads: int, task: str) -> LoneRun:
    """Load the model in ``directory`` and run the batches of an ``.npz`` (``number/input``) once each."""
    open_model = open_session_of(runtime) if runtime is not None else _open_checkpoint(task)
    with np.load(batches, allow_pickle=False) as stored:
        columns = {name: stored[name] for name in stored.files}
    numbers = sorted({int(name.partition("/")[0]) for name in columns})
    padded = [
        {name.partition("/")[2]: column for name, column in columns.items() if name.startswith(f"{number}/")}
        for number in numbers
    ]
    begun = time.perf_counter()
    session = open_model(directory, threads)
    opened = time.perf_counter()
    session.run(padded[0])
    answered = time.perf_counter()
    for batch in padded[1:]:
        session.run(batch)
    modules = sorted({name.partition(".")[0] for name in sys.modules})
    return LoneRun(
        load_seconds=answered - begun,
        first_answer_seconds=answered - opened,
        peak_rss_bytes=peak_rss_bytes(),
        modules=modules,
    )


def _open_checkpoint(task: str) -> Callable[[Path, int], Session]:
    # Only a process that runs a checkpoint loads torch.
    models = importlib.import_module("modelmill.measuring.models")
    return lambda directory, threads: models.open_checkpoint(directory, registry.get(task), threads).session


def main() -> None:
    """``python -m modelmill.measuring.footprint_process DIRECTORY RUNTIME BATCHES THREADS TASK``: JSON on stdout.

    An empty RUNTIME is PyTorch's, which runs a checkpoint.
    """
    directory, runtime, batches, threads, task = sys.argv[1:]
    try:
        done = run_alone(Path(directory), Runtime(runtime) if runtime else None, Path(batches), int(threads), task)
    except ModelmillError as error:
        sys.exit(error.what)
    sys.stdout.write(done.model_dump_json() + "\n")


if __name__ == "__main__":
    main()
