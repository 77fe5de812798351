"""Macro F1: every class counts the same, however many rows it has."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np


class MacroF1(evaluate.Metric):  # type: ignore[misc]
    """Mean over classes of F1 = 2TP / (2TP + FP + FN), 0 to 1.

    The mean goes over the classes that occur among the predictions or the references, as scikit-learn's
    ``f1_score(average="macro")`` does: a class that no row has and no prediction names has no F1.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Unweighted mean of the classes' F1 scores.",
            citation="",
            inputs_description="predictions, references: class numbers, one a row. Gives macro_f1, 0 to 1.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        predicted, right = np.asarray(predictions), np.asarray(references)
        classes = np.union1d(predicted, right)
        hits = predicted[predicted == right]
        # 2TP + FP + FN is the class's predictions plus its references.
        both = _counts(predicted, classes) + _counts(right, classes)
        return {"macro_f1": float(np.mean(2 * _counts(hits, classes) / both))}


def _counts(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """How often each of the sorted ``classes`` occurs: int64, shape (classes,)."""
    return np.bincount(np.searchsorted(classes, values), minlength=len(classes))
