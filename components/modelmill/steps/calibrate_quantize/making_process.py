"""A process that makes one variant: under a budget of memory, what a search holds besides must not count.

So a candidate takes in a search what it takes where the choice is applied, whatever was tried before it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from modelmill.core import child
from modelmill.core.errors import ModelError, ModelmillError
from modelmill.core.manifest import write_json
from modelmill.core.progress import SilentProgress
from modelmill.measuring.timing_asks import Failure
from modelmill.steps.calibrate_quantize.trial_asks import Made, Making, words_of
from modelmill.steps.calibrate_quantize.variants import make_variant
from modelmill.tasks import registry


def make_apart(making: Making) -> None:
    """`make_variant` in a process of its own, which ends with this one.

    Raises:
        ModelmillError: As `make_variant`.
        ModelError: The process crashed.
    """
    document = making.output.with_name(f"{making.output.name}.json")
    write_json(document, making.model_dump(mode="json"))
    command = [sys.executable, "-m", "modelmill.steps.calibrate_quantize.making_process", str(document)]
    with subprocess.Popen(
        command, env=child.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        said = process.stdout.read() if process.stdout is not None else ""
    document.unlink()
    if process.returncode:
        died = process.returncode < 0
        how = f"died of {signal.Signals(-process.returncode).name}" if died else f"ended with {process.returncode}"
        what = f"the process that makes it {how}"
        raise ModelError(what, where=str(making.job.model))
    failure = Made.model_validate_json(said).failure
    if failure is not None:
        raise failure.error()


def main() -> None:
    """``python -m modelmill.steps.calibrate_quantize.making_process MAKING``: what came of it on stdout."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    child.lines_from_parent()
    making = Making.model_validate_json(Path(sys.argv[1]).read_bytes())
    job, variant, task = making.job, making.variant, registry.get(making.job.task)
    failure = None
    try:
        make_variant(job.model, job.calibrate, making.output, variant, task, job.runtime, SilentProgress())
    except ModelmillError as error:
        failure = Failure.of(error)
    except Exception as error:  # runtimes and rewriters have errors of their own; the search names them and goes on
        failure = Failure.of(ModelError(words_of(error)))
    answers.write(Made(failure=failure).model_dump_json())
    answers.flush()


if __name__ == "__main__":
    main()
