"""The numbers of the project's metrics, against scikit-learn's and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from modelmill.tasks.text_classification import TextClassification

TASK = TextClassification()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 5, 77])
def test_metrics_are_scikit_learns(classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    reference = random.integers(0, classes, 400)
    predicted = np.where(random.random(400) < 0.7, reference, random.integers(0, classes, 400))
    labels = [f"label {index}" for index in range(classes)]
    found = TASK.metrics(predicted, reference, labels)
    assert found["accuracy"] == pytest.approx(accuracy_score(reference, predicted), abs=1e-15)
    assert found["macro_f1"] == pytest.approx(f1_score(reference, predicted, average="macro"), abs=1e-12)
    present = np.unique(reference)
    recalls = recall_score(reference, predicted, labels=present, average=None)
    assert found["per_class"] == pytest.approx({labels[k]: recall for k, recall in zip(present, recalls, strict=True)})


def test_metrics_by_hand() -> None:
    found = TASK.metrics(np.asarray([0, 1, 1, 0]), np.asarray([0, 1, 0, 2]), ["a", "b", "c", "d"])
    # F1: a 2·1/(2+2), b 2·1/(2+1), c 0; d occurs nowhere.
    assert found["accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    assert found["per_class"] == {"a": 0.5, "b": 1.0, "c": 0.0}


def test_metrics_leave_no_file_and_no_random_state_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    TASK.metrics(np.asarray([0]), np.asarray([0]), ["a"])
    assert np.array_equal(before, np.random.get_state()[1])
    assert list(tmp_path.iterdir()) == []
