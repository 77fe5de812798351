"""Which estimate compares two models' answers: rows that are right, resampled rows, or resampled units of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelmill.core.evidence import Metric
from modelmill.steps.gate import estimates
from modelmill.steps.gate.bootstrap import kinds_of
from modelmill.steps.gate.bootstrapped import MetricOf
from modelmill.steps.gate.compare import Answers
from modelmill.steps.gate.estimates import Compared, Paired, Resampled
from modelmill.steps.gate.units import LEAST_UNITS, ByUnit, Units
from modelmill.tasks.base import Task


@dataclass(frozen=True)
class Named:
    """What belongs together: the column that says so, and each row's value."""

    column: str
    names: Sequence[str]


def compared_of(task: Task, metric: Metric, answers: Answers, units: Named | None = None) -> Compared:
    """The baseline's and the candidate's answers, compared by a metric.

    Args:
        task: Computes the metric.
        metric: One that the task may be judged by.
        answers: Both models'.
        units: Rows that belong together; None: each row stands for itself.
    """
    paired = paired_of(task, answers)
    if units is not None:
        return by_unit_of(task, metric.name, answers, paired, units)
    return paired if metric == task.metric else resampled_of(task, metric.name, answers, paired)


def paired_of(task: Task, answers: Answers) -> Paired:
    """Rows that are right, counted."""
    return Paired(
        metric=task.metric.name,
        rows=len(answers.reference),
        lost=int((answers.baseline_right & ~answers.candidate_right).sum()),
        gained=int((answers.candidate_right & ~answers.baseline_right).sum()),
        candidate_correct=int(answers.candidate_right.sum()),
    )


def resampled_of(task: Task, name: str, answers: Answers, paired: Paired) -> Resampled:
    """Both models' answers for a metric that is no share of rows."""
    kinds = kinds_of(answers.reference, answers.baseline, answers.candidate)
    return Resampled(name, paired, kinds, _values(task, name, answers, kinds.first))


def by_unit_of(task: Task, name: str, answers: Answers, paired: Paired, units: Named) -> ByUnit:
    """Both models' answers where rows belong together."""
    kinds = kinds_of(answers.reference, answers.baseline, answers.candidate)
    found = Units.of(units.names, kinds.of_row, len(kinds.counts))
    before, after = answers.baseline_right[kinds.first], answers.candidate_right[kinds.first]
    net = found.kinds @ (before.astype(np.float64) - after)
    values = _values(task, name, answers, kinds.first)
    least = LEAST_UNITS if name == task.metric.name else estimates.LEAST_UNITS
    return ByUnit(name, paired, found, net, units.column, values, least)


def _values(task: Task, name: str, answers: Answers, rows: np.ndarray) -> MetricOf:
    """A metric of either model on weighted rows."""
    reference = answers.reference[rows]
    predicted = {"baseline": answers.baseline[rows], "candidate": answers.candidate[rows]}

    def values(model: str, weights: np.ndarray) -> np.ndarray:
        return task.weighted_metric(name, predicted[model], reference, weights)

    return values
