"""The process that `modelmill.measuring.footprint` starts: it loads one model, runs batches, and tells what it took.

It imports the runtime and nothing of torch or transformers: a process that serves does the same.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from pydantic import Field

from modelmill.core.contract import Closed
from modelmill.core.errors import ModelmillError
from modelmill.core.memory import peak_rss_bytes
from modelmill.targets.base import Runtime
from modelmill.targets.registry import open_session_of


class LoneRun(Closed):
    """One process."""

    load_seconds: float
    peak_rss_bytes: int
    modules: list[str] = Field(description="top-level modules that were loaded")


def run_alone(directory: Path, runtime: Runtime, batches: Path, threads: int) -> LoneRun:
    """Load the model artifact in ``directory`` and run the batches of an ``.npz`` (``number/input``) once each."""
    open_session = open_session_of(runtime)
    with np.load(batches, allow_pickle=False) as stored:
        columns = {name: stored[name] for name in stored.files}
    numbers = sorted({int(name.partition("/")[0]) for name in columns})
    padded = [
        {name.partition("/")[2]: column for name, column in columns.items() if name.startswith(f"{number}/")}
        for number in numbers
    ]
    begun = time.perf_counter()
    session = open_session(directory, threads)
    session.run(padded[0])
    loaded = time.perf_counter() - begun
    for batch in padded[1:]:
        session.run(batch)
    modules = sorted({name.partition(".")[0] for name in sys.modules})
    return LoneRun(load_seconds=loaded, peak_rss_bytes=peak_rss_bytes(), modules=modules)


def main() -> None:
    """``python -m modelmill.measuring.footprint_process DIRECTORY RUNTIME BATCHES THREADS``: JSON on stdout."""
    directory, runtime, batches, threads = sys.argv[1:]
    try:
        done = run_alone(Path(directory), Runtime(runtime), Path(batches), int(threads))
    except ModelmillError as error:
        sys.exit(error.what)
    sys.stdout.write(done.model_dump_json() + "\n")


if __name__ == "__main__":
    main()
