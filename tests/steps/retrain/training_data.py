"""Small rows artifacts whose labels a tiny model can learn in seconds, and a retrain step over them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from modelmill.core.contract import Report
from modelmill.core.progress import Progress, SilentProgress
from modelmill.core.rows import Dataset, Role, Row, write_rows
from modelmill.steps.retrain.contract import FineTune, Inputs, Method, Outputs, Settings
from modelmill.steps.retrain.run import run
from small_models import WORDS

LABELS = ("lost", "fee", "refund")


def make_rows(count: int, seed: int, labels: Sequence[str] = LABELS, *, paired: bool = False) -> list[Row]:
    """Texts of other words in which the label's first word stands, in the second text of pairs."""
    draw = random.Random(seed)
    words = [word for word in WORDS if word not in LABELS]
    rows: list[Row] = []
    for index in range(count):
        number = index % len(labels)
        text = draw.choices(words, k=draw.randint(1, 3) if paired else draw.randint(2, 9))
        sign = [LABELS[number % len(LABELS)]] * 3
        row: Row = {"id": f"made:{index}", "text": " ".join(text if paired else sign + text), "label": labels[number]}
        if paired:
            row["text_pair"] = " ".join(sign)
        rows.append(row)
    return rows


def write_artifact(directory: Path, role: Role, rows: list[Row], labels: Sequence[str] = LABELS) -> Path:
    """A rows artifact."""
    directory.mkdir(parents=True)
    columns = sorted({name for row in rows for name in row} - {"id"})
    document = Dataset(task="text-classification", role=role, columns=columns, labels=list(labels), count=len(rows))
    write_rows(directory, document, rows)
    return directory


def make_inputs(
    directory: Path,
    model: Path,
    labels: Sequence[str] = LABELS,
    *,
    train: int = 120,
    tune: int = 30,
    paired: bool = False,
) -> Inputs:
    """Train and tune rows beside a model."""
    return Inputs(
        model=model,
        train=write_artifact(directory / "train", Role.TRAIN, make_rows(train, 1, labels, paired=paired), labels),
        tune=write_artifact(directory / "tune", Role.TUNE, make_rows(tune, 2, labels, paired=paired), labels),
    )


def fine_tune(**changes: object) -> FineTune:
    """A training that teaches the tiny model its labels."""
    return FineTune.model_validate(
        {"method": "fine-tune", "epochs": 3, "batch_size": 16, "learning_rate": 1e-2, **changes}
    )


def retrain(
    directory: Path,
    inputs: Inputs,
    method: Method,
    progress: Progress | None = None,
    max_length: int | None = None,
) -> tuple[Outputs, Report]:
    """Run the step with its outputs below ``directory``; a scratch directory that is there is kept."""
    outputs = Outputs(checkpoint=directory / "checkpoint", progress=directory / "progress")
    outputs.checkpoint.mkdir(parents=True)
    outputs.progress.mkdir(exist_ok=True)
    settings = Settings(task="text-classification", retrain=method, max_length=max_length)
    return outputs, run(inputs, outputs, settings, progress or SilentProgress())
