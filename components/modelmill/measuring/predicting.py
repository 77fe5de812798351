"""What a loaded model says on rows, in whole or in shards."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelmill.core.batch_plan import BatchPlan, plan_batches
from modelmill.core.errors import ModelError
from modelmill.core.progress import Bar, SilentBar
from modelmill.targets.base import Session
from modelmill.tasks.base import Batch, Features, Task


@dataclass(frozen=True)
class Predicted:
    """What a model says on some rows.

    Attributes:
        rows: int64, shape (n,): row numbers, in the order of the plan's batches.
        outputs: float32, shape (n, …): the task's outputs, such as logits.
    """

    rows: np.ndarray
    outputs: np.ndarray


def plan_of(features: Sequence[Features]) -> BatchPlan:
    """The plan of encoded rows: by the length of each row's longest column."""
    return plan_batches([length_of(row) for row in features])


def length_of(row: Features) -> int:
    """Tokens of an encoded row."""
    return max(len(column) for column in row.values())


def padded_batches(task: Task, processor: Any, features: Sequence[Features], plan: BatchPlan) -> list[Batch]:
    """The plan's batches, each padded to its own longest row."""
    return [task.collate(processor, [features[row] for row in rows]) for rows in plan.batches]


def predict(
    session: Session,
    task: Task,
    processor: Any,
    features: Sequence[Features],
    plan: BatchPlan,
    *,
    workers: int = 1,
    padding: int = 0,
    max_length: int | None = None,
    references: np.ndarray | None = None,
    bar: Bar | None = None,
) -> Predicted:
    """Run the plan's batches.

    Several workers, each running whole batches on a session of one thread, give the same bytes as one, and more
    texts a second than one batch at a time on as many threads: no operator waits for the slowest of its threads.

    Args:
        session: The loaded model; with several workers one that may be run from several threads at once.
        task: Pads rows and picks the array to keep.
        processor: The model's tokenizer.
        features: All encoded rows, also where the plan is a shard of them.
        plan: A whole plan or a shard; at least one batch.
        workers: Batches run at a time.
        padding: Tokens by which each batch is padded beyond its longest row.
        max_length: Tokens to which it is so padded at most; None: no limit.
        references: What is right for every row, for the running share on the bar.
        bar: Advanced by rows.

    Raises:
        ModelError: An output is not finite; the first such row of the plan is named by its line.
    """
    reported = bar or SilentBar()
    kept: list[np.ndarray] = []
    right = seen = 0

    def run(rows: tuple[int, ...]) -> np.ndarray:
        some = [features[row] for row in rows]
        length = max(length_of(row) for row in some) + padding if padding else None
        batch = task.collate(processor, some, min(length, max_length or length) if length else None)
        return np.asarray(task.outputs_of(session.run(batch)), dtype=np.float32)

    with ThreadPoolExecutor(workers) as executor:
        answers = executor.map(run, plan.batches) if workers > 1 else map(run, plan.batches)
        for rows, outputs in zip(plan.batches, answers, strict=True):
            _require_finite(outputs, rows)
            kept.append(outputs)
            if references is not None:
                right += int(task.correct(task.decode(outputs), references[list(rows)]).sum())
                seen += len(rows)
                reported.note(f"{task.metric.name} {right / seen:.4f}")
            reported.advance(len(rows))
    numbers = np.asarray([row for rows in plan.batches for row in rows], dtype=np.int64)
    return Predicted(numbers, np.concatenate(kept))


def join(parts: Sequence[Predicted], count: int) -> np.ndarray:
    """The outputs of all rows in row order, from shards in any order.

    Args:
        parts: Shards of one plan.
        count: Rows of the plan.

    Raises:
        ValueError: The shards hold a row twice, or lack one.
    """
    rows = np.concatenate([part.rows for part in parts])
    if not np.array_equal(np.sort(rows), np.arange(count)):
        what = f"the shards hold {len(rows)} rows, {len(np.unique(rows))} of them different, for a plan of {count}"
        raise ValueError(what)
    outputs = np.concatenate([part.outputs for part in parts])
    whole = np.empty_like(outputs)
    whole[rows] = outputs
    return whole


def _require_finite(outputs: np.ndarray, rows: Sequence[int]) -> None:
    finite = np.isfinite(outputs).reshape(len(rows), -1).all(axis=1)
    if not finite.all():
        row = rows[int(np.flatnonzero(~finite)[0])]
        what = "the model's outputs for a row are not finite"
        fix = "look at that row; if every row is so, the weights or the quantized ranges are broken"
        raise ModelError(what, where=f"rows.jsonl: line {row + 1}", fix=fix)
