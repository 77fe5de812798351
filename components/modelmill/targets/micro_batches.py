"""Batches divided inside a session: parts of few tokens, cut to their longest row, on one thread each.

A batch of 32 texts of 128 tokens has intermediate values of 25 MB in a small encoder, more than a second-level cache
holds, and every row is computed to the batch's longest. Parts that stay in the cache, trimmed of their padding and run
side by side on whole threads, give the same answers sooner; where it pays is for the search to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from modelmill.core.batch_plan import plan_batches
from modelmill.core.model import MicroBatching, ModelDocument
from modelmill.targets.base import Session

MASK = "attention_mask"
"""The column that tells padding: 1 for tokens, 0 after them."""


class MicroBatchedSession:
    """Runs a batch in parts, each by a session of the same model.

    Args:
        open_session: Loads the model to run on a number of threads.
        document: The model's ``model.json``: tells which outputs have an axis of tokens.
        settings: How to divide.
        threads: Of all parts together. A batch that is one part runs on all of them.
    """

    def __init__(
        self, open_session: Callable[[int], Session], document: ModelDocument, settings: MicroBatching, threads: int
    ) -> None:
        self._max_tokens = settings.max_tokens
        self._workers = min(settings.workers, threads)
        self._whole = open_session(threads)
        each = threads // self._workers
        self._part = self._whole if each == threads else open_session(each)
        self._executor = ThreadPoolExecutor(self._workers) if self._workers > 1 else None
        self._by_token = _values_by_token(document)

    def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the model on one padded batch.

        Args:
            batch: Input name → shape (batch, sequence). Without a column ``attention_mask`` nothing tells what is
                padding, and rows are taken to be full.

        Returns:
            Value name → array, rows in the batch's order; values with an axis of tokens are filled with zeros where a
            part was cut.
        """
        rows, sequence = next(iter(batch.values())).shape[:2]
        lengths = _lengths(batch.get(MASK), rows, sequence)
        parts = plan_batches(lengths.tolist(), max_rows=rows, max_tokens=max(1, self._max_tokens)).batches
        if len(parts) == 1:
            return self._joined(
                [(np.asarray(parts[0]), self._cut(self._whole, batch, parts[0], lengths))], rows, sequence
            )
        # The longest first: what is left for the last worker is short.
        ordered = [np.asarray(part) for part in reversed(parts)]

        def run(part: np.ndarray) -> dict[str, np.ndarray]:
            return self._cut(self._part, batch, part, lengths)

        answers = map(run, ordered) if self._executor is None else self._executor.map(run, ordered)
        return self._joined(list(zip(ordered, answers, strict=True)), rows, sequence)

    def _cut(
        self, session: Session, batch: Mapping[str, np.ndarray], part: np.ndarray | tuple[int, ...], lengths: np.ndarray
    ) -> dict[str, np.ndarray]:
        index = np.asarray(part)
        length = int(lengths[index].max())
        return session.run({name: np.ascontiguousarray(column[index, :length]) for name, column in batch.items()})

    def _joined(
        self, parts: list[tuple[np.ndarray, dict[str, np.ndarray]]], rows: int, sequence: int
    ) -> dict[str, np.ndarray]:
        joined: dict[str, np.ndarray] = {}
        for name, first in parts[0][1].items():
            shape = (rows, sequence, *first.shape[2:]) if name in self._by_token else (rows, *first.shape[1:])
            whole = np.zeros(shape, first.dtype)
            for index, values in parts:
                found = values[name]
                if name in self._by_token:
                    whole[index, : found.shape[1]] = found
                else:
                    whole[index] = found
            joined[name] = whole
        return joined


def _lengths(mask: np.ndarray | None, rows: int, sequence: int) -> np.ndarray:
    """Columns up to each row's last token: padding before a text stays, for cutting it would move its positions."""
    if mask is None:
        return np.full(rows, sequence)
    seen = mask != 0
    return np.where(seen.any(axis=1), sequence - np.argmax(seen[:, ::-1], axis=1), sequence)


def _values_by_token(document: ModelDocument) -> set[str]:
    """The values whose second axis has the name of the inputs' second axis."""
    found = set()
    for stage in document.execution.stages:
        component = document.components[stage.component]
        axes = {item.shape[1] for item in component.inputs if len(item.shape) > 1 and isinstance(item.shape[1], str)}
        for output in component.outputs:
            if len(output.shape) > 1 and output.shape[1] in axes and output.name in stage.gives:
                found.add(stage.gives[output.name])
    return found
