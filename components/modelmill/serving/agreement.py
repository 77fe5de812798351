"""Whether a server says what the evaluation said: the evaluation's own batches, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelmill.core.batch_plan import BatchPlan
from modelmill.core.predictions import read_predictions
from modelmill.core.progress import Progress
from modelmill.core.rows import Row
from modelmill.core.smoke import ServedRow
from modelmill.serving.client import Client, Text

DIFFERENCES = 20
"""Rows told at most."""


@dataclass(frozen=True)
class Agreement:
    """What a server said of rows that were evaluated.

    Attributes:
        rows: How many were sent.
        differing: How many got another label than in the evaluation.
        differences: The first of them.
        largest_change: Of a label's share, absolute.
    """

    rows: int
    differing: int
    differences: tuple[ServedRow, ...]
    largest_change: float


def ask(
    client: Client, rows: Sequence[Row], plan: BatchPlan, predictions: Path, texts: int, progress: Progress
) -> Agreement:
    """Send about ``texts`` rows and compare.

    Whole batches of the evaluation's plan, short and long ones in even shares: dynamic int8 scales by all texts of a
    batch, so that a text alone may rightly get another answer.

    Args:
        client: The server's.
        rows: All evaluation rows, in their order.
        plan: The evaluation's.
        predictions: What the candidate said of them.
        texts: About how many to send.
        progress: Shows how far it is.

    Raises:
        AnswerError: The server refuses a text.
        OutsideError: It does not answer.
    """
    document, evaluated = read_predictions(predictions)
    sent: list[int] = []
    shares: list[np.ndarray] = []
    batches = plan.shard(0, max(1, round(plan.rows / texts))).batches
    with progress.bar("the server answers", sum(len(batch) for batch in batches), "rows") as bar:
        for batch in batches:
            for part in _alike(batch, rows):
                shares.append(client.scores([text_of(rows[row]) for row in part]))
                sent += part
                bar.advance(len(part))
    served, before = np.concatenate(shares), _shares(evaluated["outputs"][sent])
    said, is_said = served.argmax(axis=-1), evaluated["predicted"][sent]
    differing = np.flatnonzero(said != is_said)
    return Agreement(
        rows=len(sent),
        differing=len(differing),
        differences=tuple(
            ServedRow(
                row=str(rows[sent[index]]["id"]),
                evaluated=document.labels[is_said[index]],
                served=document.labels[said[index]],
            )
            for index in differing[:DIFFERENCES]
        ),
        largest_change=float(np.abs(served - before).max()),
    )


def text_of(row: Row) -> Text:
    """A row as a server is asked it."""
    pair = row.get("text_pair")
    return str(row["text"]) if pair is None else (str(row["text"]), str(pair))


def _alike(batch: Sequence[int], rows: Sequence[Row]) -> Iterator[list[int]]:
    """A batch's rows, those with a second text by themselves: a request has one for each text, or none."""
    for paired in (False, True):
        part = [row for row in batch if (rows[row].get("text_pair") is not None) == paired]
        if part:
            yield part


def _shares(outputs: np.ndarray) -> np.ndarray:
    exponents = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))
