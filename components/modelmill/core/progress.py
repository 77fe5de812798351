"""How a step tells what it is doing: passed in, never looked up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, TextIO


class Bar(Protocol):
    """One running piece of work of known or unknown length."""

    def advance(self, amount: float = 1) -> None:
        """Count ``amount`` more units as done."""
        ...

    def note(self, text: str) -> None:
        """Show a short text beside the bar, such as the current loss."""
        ...


class Progress(Protocol):
    """Where a step reports to."""

    def fact(self, text: str) -> None:
        """One line that stays: something decided, found or finished."""
        ...

    def bar(self, label: str, total: float | None = None, unit: str = "") -> AbstractContextManager[Bar]:
        """A bar for work of ``total`` units (``unit="bytes"`` is shown as a size)."""
        ...

    def saved(self, path: Path) -> None:
        """Say that ``path``, below a scratch port, is complete: a killed attempt's successor may go on from it."""
        ...


class SilentBar:
    """A bar that nobody sees."""

    def advance(self, amount: float = 1) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


class SilentProgress:
    """Progress that nobody sees: for tests and for callers that only want the result."""

    def fact(self, text: str) -> None:
        """Do nothing."""

    @contextmanager
    def bar(self, label: str, total: float | None = None, unit: str = "") -> Iterator[Bar]:
        """Yield a bar that does nothing."""
        yield SilentBar()

    def saved(self, path: Path) -> None:
        """Do nothing."""


class _LineBar:
    """Writes at most a line every ten seconds, so that a log never scales with the work."""

    def __init__(self, progress: LineProgress, label: str, total: float | None, unit: str) -> None:
        self._progress, self._label, self._total, self._unit = progress, label, total, unit
        self._done = 0.0
        self._text = ""
        self._last = time.monotonic()

    def advance(self, amount: float = 1) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._last >= 10:
            self._last = now
            of = f" of {self._total:g}" if self._total else ""
            self._progress.fact(f"{self._label}: {self._done:g}{of} {self._unit} {self._text}".rstrip())

    def note(self, text: str) -> None:
        self._text = text


class LineProgress:
    """One line per fact on a stream: for pipes, log files and containers."""

    def __init__(self, stream: TextIO, prefix: str = "") -> None:
        self._stream, self._prefix = stream, prefix

    def fact(self, text: str) -> None:
        """Write ``text`` as a line."""
        self._stream.write(f"{self._prefix}{text}\n")
        self._stream.flush()

    @contextmanager
    def bar(self, label: str, total: float | None = None, unit: str = "") -> Iterator[Bar]:
        """Yield a bar that writes a line every ten seconds."""
        yield _LineBar(self, label, total, unit)

    def saved(self, path: Path) -> None:
        """Do nothing: whoever runs the step wraps this."""
