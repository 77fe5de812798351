"""Which rows stand in one batch, fixed by the rows alone.

Dynamic int8 scales activations by the largest value of the whole batch, padding included, so that a text's logits
depend on the texts beside it (onnxruntime#8625, #10111). Which texts stand together is therefore a part of the
result, and is decided here once: from the encoded lengths and the order of rows, never from threads, memory, or how
many workers share the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_BATCH_ROWS = 32
MAX_BATCH_TOKENS = 512


@dataclass(frozen=True)
class BatchPlan:
    """Batches of row numbers.

    Attributes:
        batches: Each batch's rows, in their order inside the batch. Every row stands in exactly one of a whole
            plan's batches.
    """

    batches: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> int:
        """Rows in all batches."""
        return sum(len(batch) for batch in self.batches)

    def shard(self, index: int, count: int) -> BatchPlan:
        """Every ``count``-th batch from ``index`` on: short and long ones in even shares. A batch is never split."""
        return BatchPlan(self.batches[index::count])


def plan_batches(
    lengths: Sequence[int], *, max_rows: int = MAX_BATCH_ROWS, max_tokens: int = MAX_BATCH_TOKENS
) -> BatchPlan:
    """Put rows of like length together, shortest first, equal lengths in row order.

    Sorting spares padding: BANKING77's test texts in file order at 32 a batch are mostly padding.

    Args:
        lengths: Tokens of each row.
        max_rows: Rows of a batch at most.
        max_tokens: Rows of a batch times its longest row at most, one row excepted: it bounds memory.
    """
    batches: list[tuple[int, ...]] = []
    current: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        # Sorted, so that the row to come is the longest of its batch.
        if current and (len(current) == max_rows or (len(current) + 1) * lengths[row] > max_tokens):
            batches.append(tuple(current))
            current = []
        current.append(row)
    if current:
        batches.append(tuple(current))
    return BatchPlan(tuple(batches))
