"""Metrics as `evaluate` modules that live in the project: `evaluate`'s hub is out of reach at run time.

Nothing here is loaded until a number is asked for, because `evaluate` brings datasets and pandas along.
"""

from __future__ import annotations

import importlib
import tempfile
from typing import Any

import numpy as np

from modelmill.core.contract import JSON

ACCURACY = "modelmill.tasks.metrics.accuracy:Accuracy"
MACRO_F1 = "modelmill.tasks.metrics.macro_f1:MacroF1"
PER_CLASS_ACCURACY = "modelmill.tasks.metrics.per_class_accuracy:PerClassAccuracy"


def compute(reference: str, predicted: np.ndarray, references: np.ndarray) -> dict[str, JSON]:
    """Run one of the project's `evaluate` modules.

    Args:
        reference: ``module:class`` of the `evaluate.Metric`.
        predicted: What the model said, in the form the metric takes: int64, shape (rows,) for classification.
        references: What is right, in the same form.

    Returns:
        What the metric gives, by name.
    """
    module, _, name = reference.partition(":")
    metric: Any = getattr(importlib.import_module(module), name)
    # An evaluate module makes a directory for itself even when it keeps its data in memory.
    with tempfile.TemporaryDirectory(prefix="modelmill-metric-") as directory:
        module_of_metric = metric(keep_in_memory=True, cache_dir=directory)
        return dict(module_of_metric.compute(predictions=predicted, references=references))
