"""Predictions that flip with their batch are counted; the session is scripted, so that which ones is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from modelmill.measuring.models import OpenModel
from modelmill.measuring.neighbours import MIXED
from modelmill.measuring.predicting import join, predict
from modelmill.steps.evaluate.evaluation_rows import EvaluationRows, encode_rows
from modelmill.steps.evaluate.neighbours import try_neighbours
from modelmill.targets.pytorch import load_processor
from modelmill.tasks import registry
from tiny_artifacts import random_rows, rows_artifact

COUNT = 40


class Moody:
    """Says the first label, but for batches in which it has changed its mind: the second."""

    def __init__(self, changes: str) -> None:
        self._changes = changes

    def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows, mask = len(batch["input_ids"]), batch["attention_mask"]
        alone, padded = rows == 1, bool((mask.sum(axis=1) < mask.shape[1]).all())
        changed = {"never": False, "alone": alone and not padded, "mixed": rows == MIXED, "padded": alone and padded}
        logits = np.zeros((rows, 3), np.float32)
        logits[:, 1 if changed[self._changes] else 0] = 2.0
        return {"logits": logits}


def opened(model: Path, changes: str) -> OpenModel:
    task = registry.get("text-classification")
    labels = ("alpha", "beta", "gamma")
    return OpenModel(Moody(changes), task, load_processor(model), labels, 64, 1, "float32")


def asked_of(model: OpenModel, folder: Path) -> tuple[EvaluationRows, np.ndarray]:
    asked = encode_rows(rows_artifact(folder / "rows", random_rows(COUNT)), model)
    # In one batch, as no pass of the trial has them.
    outputs = np.zeros((COUNT, 3), np.float32)
    outputs[:, 0] = 2.0
    return asked, outputs


@pytest.mark.parametrize(
    ("changes", "flips"),
    [("never", (0, 0, 0)), ("alone", (COUNT, 0, 0)), ("mixed", (0, COUNT, 0)), ("padded", (0, 0, COUNT))],
)
def test_a_prediction_that_changes_in_one_kind_of_batch_is_counted_there_and_in_all(
    exported: Path, tmp_path: Path, changes: str, flips: tuple[int, int, int]
) -> None:
    model = opened(exported, changes)
    asked, outputs = asked_of(model, tmp_path)
    found = try_neighbours(model, asked, outputs, workers=1)
    assert found.padded is not None
    assert (found.alone.flips, found.mixed.flips, found.padded.flips) == flips
    assert found.flips == max(flips)
    assert found.rows == COUNT
    largest = [found.alone.largest, found.mixed.largest, found.padded.largest]
    assert largest == [2.0 if flip else 0.0 for flip in flips]


def test_padding_ends_at_the_models_length(exported: Path, tmp_path: Path) -> None:
    lengths = []

    class Noting(Moody):
        def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            lengths.append(batch["input_ids"].shape[1])
            return super().run(batch)

    model = opened(exported, "never")
    asked, _ = asked_of(model, tmp_path)
    at_most = max(len(row["input_ids"]) for row in asked.features) + 1
    session = Noting("never")
    found = predict(session, model.task, model.processor, asked.features, asked.plan, padding=500, max_length=at_most)
    assert set(lengths) == {at_most}
    assert join([found], COUNT).shape == (COUNT, 3)
