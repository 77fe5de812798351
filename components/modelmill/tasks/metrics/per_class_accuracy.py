"""Accuracy of each class: the share of its rows that are right (its recall)."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np


class PerClassAccuracy(evaluate.Metric):  # type: ignore[misc]
    """Class number → share of its reference rows that are right; classes without rows are left out."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of each class's rows that are right.",
            citation="",
            inputs_description="predictions, references: class numbers, one a row. Gives per_class.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, dict[int, float]]:
        predicted, right = np.asarray(predictions), np.asarray(references)
        return {"per_class": {int(k): float(np.mean(predicted[right == k] == k)) for k in np.unique(right)}}
