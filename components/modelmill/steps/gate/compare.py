"""What changed between two models' answers: classes, confusions, rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modelmill.core.evidence import ClassChange, Confusion, Disagreement
from modelmill.core.rows import Row

MAX_DISAGREEMENTS = 200
MAX_TEXT = 2000
"""Characters of a text that evidence keeps."""


@dataclass(frozen=True)
class Answers:
    """What both models said to the same rows.

    Attributes:
        labels: Names of the numbers that classification predicts; empty for tasks without labels.
        reference: What is right, first axis the row.
        baseline: What the baseline predicted, of the same shape.
        candidate: What the candidate predicted, of the same shape.
        baseline_right: bool, shape (rows,).
        candidate_right: bool, shape (rows,).
    """

    labels: Sequence[str]
    reference: np.ndarray
    baseline: np.ndarray
    candidate: np.ndarray
    baseline_right: np.ndarray
    candidate_right: np.ndarray

    def name(self, value: np.ndarray) -> str:
        """A prediction or reference for people: its label, or its numbers."""
        if self.labels and value.ndim == 0:
            return self.labels[int(value)]
        return str(value.tolist())

    @property
    def differing(self) -> np.ndarray:
        """The rows that the two models call differently: int64, ascending."""
        unequal = self.baseline != self.candidate
        return np.flatnonzero(unequal.reshape(len(unequal), -1).any(axis=1))


def class_changes(answers: Answers) -> list[ClassChange]:
    """Classes whose count of right rows changed, most changed first; none for tasks without labels."""
    if not answers.labels:
        return []
    found = []
    for index, label in enumerate(answers.labels):
        inside = answers.reference == index
        before = int(answers.baseline_right[inside].sum())
        after = int(answers.candidate_right[inside].sum())
        if before != after:
            found.append(
                ClassChange(label=label, rows=int(inside.sum()), baseline_correct=before, candidate_correct=after)
            )
    return sorted(found, key=lambda item: (-abs(item.baseline_correct - item.candidate_correct), item.label))


def confusions(answers: Answers) -> list[Confusion]:
    """How the rows that the models call differently are called, most frequent first; none for tasks without labels."""
    if not answers.labels:
        return []
    counts = Counter(
        (
            answers.name(answers.reference[row]),
            answers.name(answers.baseline[row]),
            answers.name(answers.candidate[row]),
        )
        for row in answers.differing
    )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        Confusion(reference=reference, baseline=before, candidate=after, rows=rows)
        for (reference, before, after), rows in ordered
    ]


def disagreements(answers: Answers, rows: Sequence[Row], text_of: Callable[[Row], str]) -> list[Disagreement]:
    """The first `MAX_DISAGREEMENTS` rows that the models call differently: lost rows, gained ones, then the rest."""

    def kind(row: int) -> int:
        right = bool(answers.baseline_right[row]), bool(answers.candidate_right[row])
        return {(True, False): 0, (False, True): 1}.get(right, 2)

    shown = sorted((int(row) for row in answers.differing), key=lambda row: (kind(row), row))[:MAX_DISAGREEMENTS]
    return [
        Disagreement(
            row=str(rows[row]["id"]),
            reference=answers.name(answers.reference[row]),
            baseline=answers.name(answers.baseline[row]),
            candidate=answers.name(answers.candidate[row]),
            text=text_of(rows[row])[:MAX_TEXT],
        )
        for row in shown
    ]
