"""Models timed in several fresh processes, one after another.

What differs from process to process (where memory came to lie, which cores threads settled on, what the allocator did)
no number of rounds within one averages out; `modelmill.measuring.ratios` makes intervals of what is found here.
"""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from modelmill.core import child
from modelmill.core.errors import ModelError, ModelmillError, StepKilledError
from modelmill.core.manifest import write_json
from modelmill.core.progress import Bar, Progress
from modelmill.measuring.rounds import Rounds
from modelmill.measuring.timing_asks import Ask, Job, Line, Opened, Timings, Work

if TYPE_CHECKING:
    from modelmill.measuring.timer import Timer

PROCESSES = 3
_END_SECONDS = 10
_SAID_LINES = 3


@dataclass(frozen=True)
class Timed:
    """One piece of work, timed.

    Attributes:
        processes: The rounds of each process.
        passes: How often all texts were run; 1 for a cell.
    """

    processes: Sequence[Rounds]
    passes: int

    @property
    def count(self) -> int:
        """Timings of each name, in all processes."""
        return sum(rounds.count for rounds in self.processes)


def time_models(
    job: Job,
    works: Callable[[Mapping[str, Opened]], Sequence[Work]],
    *,
    processes: int,
    seconds: float,
    progress: Progress,
) -> tuple[Mapping[str, Opened], list[Timed]]:
    """Open the models in each of several processes, and time all work in turns there.

    Args:
        job: The models.
        works: What to time, given what the first process found.
        processes: How many; 1: this very process, and nothing is said of others.
        seconds: Budget of each work, all models and processes together.
        progress: Shown each work of each process.

    Returns:
        What was found, by name, and the timings in the order of the work.

    Raises:
        ModelError: A model is broken, or crashes its runtime.
        StepKilledError: A process was killed, by the memory limit as a rule.
        ModelmillError: As a process raises it.
    """
    opened: Mapping[str, Opened] = {}
    work: Sequence[Work] = []
    found: list[list[Timings]] = []
    for part in range(processes):
        with ExitStack() as stack:
            timer: Timer | TimingProcess = (
                _timer_here(job) if processes == 1 else stack.enter_context(TimingProcess(job))
            )
            if not part:
                opened = timer.opened()
                work = works(opened)
                found = [[] for _ in work]
            for item, timings in zip(work, found, strict=True):
                told = item.label if processes == 1 else f"{item.label}, process {part + 1} of {processes}"
                with progress.bar(told, seconds / processes, "s") as bar:
                    ask = Ask(work=item, seconds=seconds / processes, part=part, parts=processes)
                    timings.append(timer.answer(ask, bar))
    return opened, [
        Timed([one.rounds() for one in timings], round(sum(one.passes for one in timings))) for timings in found
    ]


def _timer_here(job: Job) -> Timer:
    # Where other processes time, this one needs no torch.
    made: Timer = importlib.import_module("modelmill.measuring.timer").Timer(job)
    return made


class TimingProcess:
    """One life of `modelmill.measuring.timing_process`; it ends with this process, however that ends."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="modelmill-timing-")
        here = Path(self._folder.name)
        write_json(here / "job.json", self._job.model_dump(mode="json"))
        (here / "mark").write_bytes(b"\0")
        with (here / "stderr").open("wb") as stderr:
            self._child = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "modelmill.measuring.timing_process",
                    str(here / "job.json"),
                    str(here / "mark"),
                ],
                env=child.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # Nothing of it is wanted any more.
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    def opened(self) -> Mapping[str, Opened]:
        """What it found, by name.

        Raises:
            ModelmillError: As `time_models`.
        """
        return self._line().opened or {}

    def answer(self, ask: Ask, bar: Bar) -> Timings:
        """Have it time what is asked.

        Raises:
            ModelmillError: As `time_models`.
        """
        stream = self._child.stdin
        try:
            if stream is not None:
                stream.write(ask.model_dump_json() + "\n")
                stream.flush()
        except BrokenPipeError:
            raise self._ended() from None
        while True:
            line = self._line()
            if line.timings is not None:
                return line.timings
            bar.advance(line.advance or 0.0)

    def _line(self) -> Line:
        text = self._child.stdout.readline() if self._child.stdout is not None else ""
        if not text.endswith("\n"):
            raise self._ended()
        line = Line.model_validate_json(text)
        if line.failure is not None:
            raise line.failure.error()
        return line

    def _ended(self) -> ModelmillError:
        """Why there is no answer."""
        status = self._child.wait()
        here = Path(self._folder.name)
        mark = (here / "mark").read_bytes()[0]
        model = self._job.models[mark - 1] if mark else None
        of = f" at the model {model.name}" if model else ""
        where = str(model.path) if model else None
        if status == -signal.SIGKILL:
            what = f"the process that times models was killed{of}"
            fix = "give the step more memory, or measure smaller cells"
            return StepKilledError(what, where=where, fix=fix)
        if status < 0:
            what = f"the process that times models died of {signal.Signals(-status).name}{of}"
            fix = "the model crashes its runtime here: take another version of the runtime, or another precision"
            return ModelError(what, where=where, fix=fix)
        said = (here / "stderr").read_text("utf-8", "replace").strip().splitlines()
        what = f"the process that times models ended with {status}{of}: {' '.join(said[-_SAID_LINES:])}"
        return ModelmillError(what, where=where, fix="this is a bug: report it with what the process said")
