"""Where candidates are tried: a process that may crash, and a journal of what it answered."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from modelmill.core import child, temporary
from modelmill.core.contract import Closed
from modelmill.core.errors import ModelError, ModelmillError, StepKilledError
from modelmill.core.manifest import write_json
from modelmill.core.progress import Progress
from modelmill.steps.calibrate_quantize.trial_asks import Answer, Ask, Job, Line, Work

START_SECONDS = 600.0
"""After which a process that does not come up is given up."""
LEAST_SECONDS = 60.0
"""That an ask may always take: a runtime that hangs is one that fails."""
FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM})
"""Signals that may have come for another's sake: the memory limit's, an operator's."""
_END_SECONDS = 10
_UNTRIED = "the unquantized model cannot be tried"
_ANEW = "run the line again to make the graph anew"


class Entry(Closed):
    """One file of the journal."""

    ask: Ask
    answer: Answer


class Workbench:
    """Asks a process, keeps what it answered, and asks nothing twice.

    Args:
        job: What the search is about. The process is started when first asked, and anew after its death.
        journal: Where answers are kept; what is there already is believed.
        progress: Makes each answer durable.
        budget: Seconds of the search: what is left of them bounds an ask.

    Attributes:
        seconds: That what was asked so far took, on this process's clock, starts, crashes and hangs included; what the
            journal answers counts as it did when it was asked, so that a killed search's successor ends as it would
            have.
    """

    def __init__(self, job: Job, journal: Path, progress: Progress, budget: float) -> None:
        self._job, self._journal, self._progress, self._budget = job, journal, progress, budget
        self._known: dict[str, Answer] = {}
        self._counted: set[str] = set()
        files = sorted(journal.glob("*.json"))
        # Not their count: one in the middle may be gone.
        self._number = max((int(file.stem) for file in files), default=0)
        others = 0
        for file in files:
            try:
                entry = Entry.model_validate_json(file.read_bytes())
            except ValidationError:
                others += 1
                continue
            self._known[entry.ask.model_dump_json()] = entry.answer
        if others:
            progress.fact(f"entries of another version in the journal, which count for nothing: {others}")
        self._process: _Process | None = None
        self._came_up = False
        self.seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._drop()

    def ask(self, ask: Ask) -> Answer:
        """The answer; where the candidate crashed the process, one that says so.

        Raises:
            ModelError: The process cannot even load the unquantized model.
            StepKilledError: The process was killed before it came up.
            ModelmillError: As the process raises it before it comes up.
        """
        key = ask.model_dump_json()
        if key not in self._known:
            begun = time.monotonic()
            answer = self._tried(ask)
            self._known[key] = answer.model_copy(update={"seconds": time.monotonic() - begun})
            self._number += 1
            file = self._journal / f"{self._number:05d}.json"
            write_json(file, Entry(ask=ask, answer=self._known[key]).model_dump(mode="json"))
            self._progress.saved(file)
        if key not in self._counted:
            self._counted.add(key)
            self.seconds += self._known[key].seconds
        return self._known[key]

    def _tried(self, ask: Ask, *, again: bool = True) -> Answer:
        try:
            return (self._process or self._start(again=self._came_up)).ask(ask, self.limit(ask))
        except _Death as death:
            self._drop()
            # Dead before it was asked, or by another's hand: that alone says nothing of the candidate.
            if not again or not (death.idle or death.signal in FROM_OUTSIDE):
                return Answer(failure=f"it {death}")
            self._progress.fact(f"the process that tries candidates {death}; it is started and asked again")
        return self._tried(ask, again=False)

    def limit(self, ask: Ask) -> float:
        """Seconds that an ask may take."""
        # The choice rests on what judges and times: that may take the budget once more where nothing is left of it.
        least = LEAST_SECONDS if ask.work in (Work.SCREEN, Work.COMPARE) else max(LEAST_SECONDS, self._budget)
        return max(least, 2 * (self._budget - self.seconds))

    def _start(self, *, again: bool) -> _Process:
        """A process that is ready to be asked; with ``again``, one more is started where the first does not come up."""
        self._process = _Process(self._job)
        try:
            self._process.wait_until_ready()
        except _Death as death:
            self._drop()
            if not again:
                raise self._error_of(death) from None
            self._progress.fact(f"the process that tries candidates {death} as it started; it is started again")
            return self._start(again=False)
        self._came_up = True
        return self._process

    def _error_of(self, death: _Death) -> ModelmillError:
        where = str(self._job.model)
        if death.signal in FROM_OUTSIDE or death.hung:
            what = f"the process that tries candidates {death} before it could try any"
            return StepKilledError(what, where=where, fix="give the step more memory and time, and run again")
        return ModelError(f"{_UNTRIED}: the process that loads it {death}", where=where, fix=_ANEW)

    def _drop(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


class _Death(Exception):
    """How a process ended that should have answered; its words follow what ended."""

    def __init__(self, words: str, status: int | None, *, idle: bool = False) -> None:
        super().__init__(words)
        self.signal = signal.Signals(-status) if status is not None and status < 0 else None
        self.hung = status is None
        self.idle = idle


class _Process:
    """One life of `modelmill.steps.calibrate_quantize.trial_process`; it ends with this process, however that ends."""

    def __init__(self, job: Job) -> None:
        self._model = str(job.model)
        with ExitStack() as stack:
            self._folder = stack.enter_context(temporary.folder("trials"))
            (self._folder / "tmp").mkdir()
            write_json(self._folder / "job.json", job.model_dump(mode="json"))
            with (self._folder / "stderr").open("wb") as errors:
                self._child = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "modelmill.steps.calibrate_quantize.trial_process",
                        str(self._folder / "job.json"),
                    ],
                    # What it leaves half-made goes with the folder.
                    env={**child.environment(), "TMPDIR": str(self._folder / "tmp")},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                )
            self._kept = stack.pop_all()
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_ready(self) -> None:
        """Wait until it has loaded the unquantized model.

        Raises:
            ModelmillError: As the process raises it.
            _Death: It ended, or does not come up.
        """
        line = self._line(START_SECONDS)
        if line.failure is not None:
            failure = line.failure
            what = f"{_UNTRIED}: {failure.what}"
            where, fix = failure.where or self._model, failure.fix or _ANEW
            raise failure.model_copy(update={"what": what, "where": where, "fix": fix}).error()

    def ask(self, ask: Ask, limit: float) -> Answer:
        """The answer, which may take ``limit`` seconds.

        Raises:
            _Death: There is none: the process is gone or silent.
        """
        stream = self._child.stdin
        try:
            if self._child.poll() is not None:
                raise BrokenPipeError
            if stream is not None:
                stream.write(ask.model_dump_json() + "\n")
                stream.flush()
        except BrokenPipeError:
            raise self._death(idle=True) from None
        return self._line(limit).answer or Answer()

    def end(self) -> None:
        """End it; nothing of it is wanted any more."""
        self._child.kill()
        self._child.wait()
        self._reader.join()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                # What it never read cannot be flushed either.
                with suppress(BrokenPipeError):
                    stream.close()
        self._kept.close()

    def _line(self, limit: float) -> Line:
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            words = f"gave no answer in {limit:.0f} seconds"
            raise _Death(words, None) from None
        if line is None:
            raise self._death()
        return Line.model_validate_json(line)

    def _death(self, *, idle: bool = False) -> _Death:
        try:
            status = self._child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return _Death("closed its output", None, idle=idle)
        if status < 0:
            return _Death(f"died of {signal.Signals(-status).name}", status, idle=idle)
        said = (self._folder / "stderr").read_text("utf-8", "replace").strip().splitlines()
        words = f": {said[-1]}" if said else ""
        return _Death(f"ended with {status}{words}", status, idle=idle)

    def _read(self) -> None:
        for line in self._child.stdout or ():
            # A line that its end is missing of was being written when the process died.
            if line.endswith("\n"):
                self._lines.put(line)
        self._lines.put(None)
