"""The process that `modelmill.measuring.timing` starts: it opens models, times them in turns, and ends with its parent.

It reads asks from stdin and writes lines of JSON to stdout.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from modelmill.core.child import lines_from_parent
from modelmill.core.errors import ModelmillError
from modelmill.measuring.timer import Timer
from modelmill.measuring.timing_asks import Ask, Failure, Job, Line

_TELL_SECONDS = 0.5


class _ToldBar:
    """A bar that the parent shows."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._done, self._last = stream, 0.0, time.monotonic()

    def advance(self, amount: float = 1) -> None:
        """Count, and tell the parent now and then."""
        self._done += amount
        if time.monotonic() - self._last >= _TELL_SECONDS:
            _say(self._stream, Line(advance=self._done))
            self._done, self._last = 0.0, time.monotonic()

    def note(self, text: str) -> None:
        """Nothing is noted while timings run."""


def _say(stream: TextIO, line: Line) -> None:
    stream.write(line.model_dump_json(exclude_none=True) + "\n")
    stream.flush()


def main() -> None:
    """``python -m modelmill.measuring.timing_process JOB MARK``: JOB is read, MARK holds the model in work, a byte."""
    # What libraries print must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job_file, mark_file = map(Path, sys.argv[1:])
    asked = lines_from_parent()
    with mark_file.open("r+b") as file, mmap.mmap(file.fileno(), 1) as memory:

        def mark(number: int) -> None:
            memory[0] = number

        try:
            timer = Timer(Job.model_validate_json(job_file.read_bytes()), mark)
            _say(answers, Line(opened=timer.opened()))
            while True:
                ask = Ask.model_validate_json(asked.get())
                _say(answers, Line(timings=timer.answer(ask, _ToldBar(answers))))
        except ModelmillError as error:
            _say(answers, Line(failure=Failure.of(error)))


if __name__ == "__main__":
    main()
