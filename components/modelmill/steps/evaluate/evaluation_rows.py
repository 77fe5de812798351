"""The evaluation rows as a model is asked them: encoded, referenced, planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelmill.core import manifest
from modelmill.core.batch_plan import BatchPlan
from modelmill.core.contract import PortType
from modelmill.core.errors import DataError
from modelmill.core.rows import Row, read_dataset, read_rows
from modelmill.measuring.models import OpenModel
from modelmill.measuring.predicting import plan_of
from modelmill.tasks.base import Features, Task


@dataclass(frozen=True)
class EvaluationRows:
    """Rows, encoded for one model.

    Attributes:
        digest: Over the rows artifact's files, ``sha256:…``.
        features: Each row's tokens, in row order.
        references: What is right for each row.
        plan: Which rows stand in one batch.
    """

    digest: str
    features: list[Features]
    references: np.ndarray
    plan: BatchPlan


def load_rows(directory: Path, task: Task) -> list[Row]:
    """The artifact's rows.

    Raises:
        DataError: There is none, or they are another task's.
    """
    dataset = read_dataset(directory)
    rows = list(read_rows(directory))
    where = str(directory / "rows.jsonl")
    if not rows:
        what = "there are no evaluation rows"
        raise DataError(what, where=where, fix="name a split with rows under data.evaluate")
    if dataset.task != task.name:
        what = f"the rows are for the task {dataset.task}, and the model's is {task.name}"
        raise DataError(what, where=where, fix="evaluate a model on rows of its own task")
    return rows


def encode_rows(directory: Path, model: OpenModel) -> EvaluationRows:
    """Encode the artifact's rows for a model.

    Raises:
        DataError: There are no rows, they are another task's, or a label is not one of the model's.
    """
    rows = load_rows(directory, model.task)
    require_known_labels(rows, model.task, model.labels)
    features = model.task.encode(model.processor, rows, model.max_length)
    return EvaluationRows(
        digest=manifest.build(directory, PortType.ROWS).digest,
        features=features,
        references=model.task.references(rows, model.labels),
        plan=plan_of(features),
    )


def require_known_labels(rows: Sequence[Row], task: Task, labels: Sequence[str]) -> None:
    """Check that the model can give every row's label.

    Raises:
        DataError: A label is not one of the model's; the first such row is named.
    """
    known = set(labels)
    for row in rows:
        label = task.label_of(row)
        if label is not None and label not in known:
            shown = ", ".join(labels[:3]) + (", …" if len(labels) > 3 else "")
            what = f"the label {label!r} of an evaluation row is not one of the model's {len(known)} labels ({shown})"
            fix = "retrain on rows that have the label, or leave its rows out of data.evaluate"
            raise DataError(what, where=f"{row.get('id')}: label", fix=fix)
