"""Batches of random tokens for any task, with padded rows where they are wanted."""

from __future__ import annotations

from typing import Any

from modelmill.tasks.base import Batch, Task


def random_batch(task: Task, processor: Any, batch_size: int, length: int, *, padded: bool, seed: int = 0) -> Batch:
    """A batch of exactly ``length`` tokens.

    Args:
        task: Encodes and pads.
        processor: The checkpoint's tokenizer.
        batch_size: Rows.
        length: Tokens, padding included.
        padded: Whether every row but the first is cut, each shorter than the one before, and padded by the task.
        seed: Of the tokens.
    """
    whole = task.sample(processor, batch_size, length, seed)
    if not padded:
        return whole
    kept = [length, *(max(1, length * (batch_size - row) // (batch_size + 1)) for row in range(1, batch_size))]
    rows = [{name: column[row, : kept[row]] for name, column in whole.items()} for row in range(batch_size)]
    return task.collate(processor, rows, length)
