"""A model's predictions on the evaluation rows, as an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelmill.core.contract import JSON, Report
from modelmill.core.predictions import Predictions, array_of, write_predictions
from modelmill.core.progress import Progress
from modelmill.core.served import Opponent
from modelmill.measuring.models import OpenModel
from modelmill.measuring.predicting import join, predict
from modelmill.steps.evaluate.evaluation_rows import encode_rows
from modelmill.steps.evaluate.neighbours import try_neighbours
from modelmill.steps.evaluate.served import Answered

ARRAYS = ["outputs", "predicted", "reference"]


def write_answers(
    model: OpenModel,
    rows: Path,
    directory: Path,
    *,
    who: str,
    workers: int,
    progress: Progress,
    other_batches: bool = False,
    served: Mapping[Opponent, Answered] | None = None,
) -> Report:
    """Predict all rows and write outputs, predictions, references and metrics. No time enters the artifact.

    Args:
        model: Loaded.
        rows: The rows artifact.
        directory: Where the predictions artifact is written.
        who: The model for people: baseline, candidate.
        workers: Batches run at a time; the bytes do not depend on it.
        progress: Told the running share of right rows, and the result.
        other_batches: Whether some rows are predicted again among other neighbours.
        served: What the channel serves, with its answers, to stand beside the model's own.

    Raises:
        DataError: A row's label is not one of the model's.
        ModelError: An output is not finite.
    """
    asked = encode_rows(rows, model)
    task, count = model.task, asked.plan.rows
    with progress.bar(f"{who} predicts", count, "rows") as bar:
        part = predict(
            model.session,
            task,
            model.processor,
            asked.features,
            asked.plan,
            workers=workers,
            references=asked.references,
            bar=bar,
        )
    outputs = join([part], count)
    predicted = task.decode(outputs)
    neighbours = try_neighbours(model, asked, outputs, workers) if other_batches else None
    others = {array_of(name): found.predicted for name, found in (served or {}).items() if found.predicted is not None}
    metrics = task.metrics(predicted, asked.references, model.labels)
    document = Predictions(
        task=task.name,
        rows=asked.digest,
        count=count,
        labels=list(model.labels),
        metrics=metrics,
        neighbours=neighbours,
        served={opponent: found.served for opponent, found in (served or {}).items()},
        arrays=[*ARRAYS, *others],
    )
    arrays = {"outputs": outputs, "predicted": predicted, "reference": asked.references, **others}
    write_predictions(directory, document, arrays)
    shares: dict[str, JSON] = {name: value for name, value in metrics.items() if isinstance(value, float)}
    progress.fact(f"{who}: {_in_words(shares)} on {count} rows in {len(asked.plan.batches)} batches")
    if neighbours and neighbours.flips:
        progress.fact(f"{neighbours.flips} of {neighbours.rows} predictions flip with their neighbours in the batch")
    return Report({**shares, "rows": count, "batches": len(asked.plan.batches)})


def _in_words(shares: dict[str, JSON]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in shares.items())
