"""Where candidates are tried: a process that may crash, and a journal of what it answered."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from modelmill.core import child
from modelmill.core.contract import Closed
from modelmill.core.errors import ModelError
from modelmill.core.manifest import write_json
from modelmill.core.progress import Progress
from modelmill.steps.calibrate_quantize.trial_asks import Answer, Ask, Job

LONGEST_SECONDS = 1800.0
"""After which an ask is given up: a runtime that hangs is one that fails."""


class Entry(Closed):
    """One file of the journal."""

    ask: Ask
    answer: Answer


class Workbench:
    """Asks a process, keeps what it answered, and asks nothing twice.

    Args:
        job: What the search is about. The process is started when first asked, and anew after a crash.
        journal: Where answers are kept; what is there already is believed.
        progress: Makes each answer durable.
    """

    def __init__(self, job: Job, journal: Path, progress: Progress) -> None:
        self._job, self._journal, self._progress = job, journal, progress
        self._known = {
            entry.ask.model_dump_json(): entry.answer
            for entry in (Entry.model_validate_json(file.read_bytes()) for file in sorted(journal.glob("*.json")))
        }
        self._process: _Process | None = None
        self.seconds = sum(answer.seconds for answer in self._known.values())
        """What all answers took, a killed attempt's too."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.close()

    def ask(self, ask: Ask) -> Answer:
        """The answer; where the candidate crashed the process, one that says so.

        Raises:
            ModelError: The process cannot even load the unquantized model.
        """
        key = ask.model_dump_json()
        if key not in self._known:
            answer = self._asked(ask)
            self._known[key] = answer
            self.seconds += answer.seconds
            file = self._journal / f"{len(self._known):05d}.json"
            write_json(file, Entry(ask=ask, answer=answer).model_dump(mode="json"))
            self._progress.saved(file)
        return self._known[key]

    def _asked(self, ask: Ask) -> Answer:
        if self._process is None:
            self._process = _Process(self._job)
        answer = self._process.ask(ask)
        if answer is None:
            ended, self._process = self._process, None
            died = ended.close()
            if not ended.ready:
                what = f"the unquantized model cannot be tried: {died}"
                raise ModelError(what, where=str(self._job.model), fix="run the line again to make the graph anew")
            return Answer(failure=died)
        return answer


class _Process:
    """One life of `modelmill.steps.calibrate_quantize.trial_process`."""

    def __init__(self, job: Job) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="modelmill-trials-")
        here = Path(self._folder.name)
        write_json(here / "job.json", job.model_dump(mode="json"))
        self._errors = (here / "stderr").open("wb")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "modelmill.steps.calibrate_quantize.trial_process", str(here / "job.json")],
            env=child.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.ready = self._line() is not None

    def ask(self, ask: Ask) -> Answer | None:
        """The answer, or None: the process is gone."""
        if not self.ready or self._child.stdin is None:
            return None
        try:
            self._child.stdin.write(ask.model_dump_json() + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            return None
        line = self._line()
        if line is None:
            return None
        return Answer.model_validate_json(line)

    def close(self) -> str:
        """End the process, and say how it ended."""
        if self._child.stdin is not None:
            self._child.stdin.close()
        try:
            status = self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            status = None
        self._reader.join()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._errors.close()
        said = (Path(self._folder.name) / "stderr").read_text("utf-8", "replace").strip().splitlines()
        self._folder.cleanup()
        if status is None:
            return f"it gave no answer in {LONGEST_SECONDS:g} seconds"
        if status < 0:
            return f"it died of {signal.Signals(-status).name}"
        return said[-1] if said else f"it ended with {status}"

    def _line(self) -> str | None:
        try:
            return self._lines.get(timeout=LONGEST_SECONDS)
        except queue.Empty:
            return None

    def _read(self) -> None:
        for line in self._child.stdout or ():
            self._lines.put(line)
        self._lines.put(None)
