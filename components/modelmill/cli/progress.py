"""Progress for people: bars on a terminal, one line per fact otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBars
from rich.text import Text

from modelmill.core.progress import Bar, LineProgress, Progress


class _RichBar:
    def __init__(self, bars: RichBars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, amount: float = 1) -> None:
        self._bars.advance(self._task, amount)

    def note(self, text: str) -> None:
        self._bars.update(self._task, note=Text(text))


class TerminalProgress:
    """Bars that vanish when done, and facts that stay."""

    def __init__(self, console: Console, prefix: str = "") -> None:
        self._console, self._prefix = console, prefix
        self._open = 0

    def fact(self, text: str) -> None:
        """Print ``text`` as a line that stays."""
        self._console.print(Text(f"{self._prefix}{text}"))

    @contextmanager
    def bar(self, label: str, total: float | None = None, unit: str = "") -> Iterator[Bar]:
        """Show a bar; one inside another is a fact, since a terminal has one live region."""
        if self._open:
            with LineProgress(sys.stderr, self._prefix).bar(label, total, unit) as line:
                yield line
            return
        amount: ProgressColumn = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            amount,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        self._open += 1
        try:
            with RichBars(*columns, console=self._console, transient=True) as bars:
                yield _RichBar(bars, bars.add_task(label, total=total, note=""))
        finally:
            self._open -= 1

    def saved(self, path: Path) -> None:
        """Do nothing: whoever runs the step wraps this."""


def stderr_progress(prefix: str = "") -> Progress:
    """Progress on standard error, as its kind of stream asks."""
    if sys.stderr.isatty():
        return TerminalProgress(Console(stderr=True, highlight=False), prefix)
    return LineProgress(sys.stderr, prefix)
