"""Calibration batches that keep a process within the memory the recipe allows.

What a batch takes is learned from the smallest one: the longest row, alone. onnxruntime's arena gives nothing back, so
that a batch which took too much cannot be taken back by smaller ones: batches grow from one row and stop in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from modelmill.core.batch_plan import MAX_BATCH_ROWS, MAX_BATCH_TOKENS
from modelmill.core.errors import RecipeError
from modelmill.core.memory import rss_bytes
from modelmill.measuring.predicting import length_of
from modelmill.tasks.base import Batch, Features, Task

FIELD = "search.max_calibration_rss_bytes"
ROOM = 0.8
"""Of the memory left that a batch may take: what one takes is known from another's size."""


class Budget:
    """What one calibration may take.

    Args:
        most: Bytes of the process's resident set.
        resident: What it is now.

    Attributes:
        tokens: Of a batch at most; 0: a single row, whatever its length.
    """

    def __init__(self, most: int, resident: Callable[[], int] = rss_bytes) -> None:
        self._most, self._resident = most, resident
        self._before: int | None = None
        self._last, self._largest, self._each = 0, 0, 0.0
        self.tokens = 0

    def batches(self, task: Task, processor: Any, features: Sequence[Features]) -> Iterator[tuple[int, Batch]]:
        """Rows of a window in batches of equal length, the longest first, with how many rows each has.

        Rows of one length need no padding, so that the ranges do not depend on how many stand in a batch.

        Raises:
            RecipeError: The budget does not hold the model and one row.
        """
        order = sorted(range(len(features)), key=lambda row: (-length_of(features[row]), row))
        at = 0
        while at < len(order):
            length = length_of(features[order[at]])
            rows = [row for row in order[at : at + self._rows(length)] if length_of(features[row]) == length]
            if self._before is None:
                self._before = self._last = self._resident()
                self._require(self._before, "the loaded model")
            yield len(rows), task.collate(processor, [features[row] for row in rows])
            self._learn(len(rows) * length)
            at += len(rows)

    def _rows(self, length: int) -> int:
        return max(1, min(MAX_BATCH_ROWS, self.tokens // length))

    def _learn(self, tokens: int) -> None:
        """How large the next batch may be, after one of so many tokens: at most twice the largest so far."""
        now, before = self._resident(), self._before or 0
        self._require(now, f"a batch of {tokens} tokens")
        if tokens > self._largest:
            # What is free already hides a part of the first batches; the latest step tells more than the whole.
            step = (now - self._last) / (tokens - self._largest)
            self._each = max(self._each, step, (now - before) / tokens)
            self._largest, self._last = tokens, now
        room = int(ROOM * (self._most - before) / self._each) if self._each > 0 else MAX_BATCH_TOKENS
        self.tokens = min(MAX_BATCH_TOKENS, room, 2 * self._largest)

    def _require(self, taken: int, what_takes: str) -> None:
        if taken <= self._most:
            return
        takes, allowed = (f"{count / 1e6:,.0f} MB" for count in (taken, self._most))
        what = f"calibrating takes {takes} with {what_takes}, and the recipe allows {allowed}"
        fix = "allow more, cut texts shorter (model.max_length), or allow float32, which calibrates nothing"
        raise RecipeError(what, where=FIELD, fix=fix)
