"""Whether a row's prediction depends on the rows beside it, or on its padding."""

from __future__ import annotations

import numpy as np

from modelmill.core.batch_plan import BatchPlan
from modelmill.core.evidence import Neighbours, Shift
from modelmill.measuring.models import OpenModel
from modelmill.measuring.neighbours import MIXED, PADDING, ROWS
from modelmill.measuring.predicting import predict
from modelmill.steps.evaluate.evaluation_rows import EvaluationRows

_SEED = 0


def try_neighbours(model: OpenModel, asked: EvaluationRows, outputs: np.ndarray, workers: int) -> Neighbours:
    """Predict some rows alone, among random others and with more padding; compare with the evaluation's batches.

    Args:
        model: Loaded.
        asked: All rows, encoded.
        outputs: What the model gave for them in the evaluation's batches.
        workers: Batches run at a time; the result does not depend on it.

    Raises:
        ModelError: An output is not finite.
    """
    count = asked.plan.rows
    order = np.random.default_rng(_SEED).permutation(count)[:ROWS].tolist()
    decoded = model.task.decode(outputs)
    flipped = np.zeros(count, bool)
    shifts = []
    for size, padding in ((1, 0), (MIXED, 0), (1, PADDING)):
        plan = BatchPlan(tuple(tuple(order[start : start + size]) for start in range(0, len(order), size)))
        found = predict(
            model.session,
            model.task,
            model.processor,
            asked.features,
            plan,
            workers=workers,
            padding=padding,
            max_length=model.max_length,
        )
        changed = decoded[found.rows] != model.task.decode(found.outputs)
        flips = changed.reshape(len(changed), -1).any(axis=1)
        flipped[found.rows] |= flips
        away = np.abs(outputs[found.rows] - found.outputs).reshape(len(flips), -1).max(axis=1)
        shifts.append(Shift(flips=int(flips.sum()), largest=float(away.max()), median=float(np.median(away))))
    alone, mixed, padded = shifts
    return Neighbours(rows=len(order), flips=int(flipped.sum()), alone=alone, mixed=mixed, padded=padded)
