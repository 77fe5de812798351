"""A classifier's confusion matrix, as small as a page can draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelmill.core.contract import JSON
from modelmill.core.predictions import read_predictions
from modelmill.reports.plain import cut, plain

MATRIX_LABELS = 30
"""Rows and columns of a matrix at most: Kubeflow's page draws every cell, and 150 × 150 of them are no picture."""
_LABEL_LENGTH = 60


@dataclass(frozen=True)
class Matrix:
    """Rows by what is right (rows) and what the candidate says (columns)."""

    labels: tuple[str, ...]
    cells: tuple[tuple[int, ...], ...]

    def metadata(self) -> dict[str, JSON]:
        """The matrix as the metadata of Kubeflow's ``ClassificationMetrics``."""
        return {
            "confusionMatrix": {
                "annotationSpecs": [{"displayName": label} for label in self.labels],
                "rows": [{"row": list(row)} for row in self.cells],
            }
        }


def matrix_of(predictions: Path) -> Matrix | None:
    """The matrix of a predictions artifact; None where its task has no classes."""
    document, arrays = read_predictions(predictions)
    predicted, reference = arrays.get("predicted"), arrays.get("reference")
    if not document.labels or predicted is None or reference is None:
        return None
    if any(array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) for array in (predicted, reference)):
        return None
    return matrix(reference, predicted, document.labels)


def matrix(reference: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> Matrix:
    """The confusion matrix; of more than `MATRIX_LABELS` classes those with the most errors, the others as one.

    Args:
        reference: int, shape (rows,): numbers of labels.
        predicted: The same.
        labels: Their names.
    """
    count = len(labels)
    cells = np.zeros((count, count), dtype=np.int64)
    np.add.at(cells, (reference, predicted), 1)
    named = [plain(cut(label, _LABEL_LENGTH)) for label in labels]
    if count > MATRIX_LABELS:
        errors = cells.sum(axis=0) + cells.sum(axis=1) - 2 * np.diag(cells)
        shown = np.sort(np.argsort(-errors, kind="stable")[: MATRIX_LABELS - 1])
        place = np.full(count, MATRIX_LABELS - 1)
        place[shown] = np.arange(MATRIX_LABELS - 1)
        folded = np.zeros((MATRIX_LABELS, MATRIX_LABELS), dtype=np.int64)
        np.add.at(folded, (place[reference], place[predicted]), 1)
        named = [*(named[index] for index in shown), f"({count - MATRIX_LABELS + 1} other classes)"]
        cells = folded
    return Matrix(tuple(named), tuple(tuple(int(cell) for cell in row) for row in cells))
