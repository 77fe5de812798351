"""A population whose macro F1 drops by a margin exactly, and evaluations drawn from it: many at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelmill.measuring.noninferiority import drop_bounds
from modelmill.steps.gate.bootstrap import acceleration, bca_bounds
from modelmill.steps.gate.operating import Rates
from modelmill.tasks.text_classification import TextClassification

TASK = TextClassification()
WRONG_IN_BOTH = 0.08


@dataclass(frozen=True)
class Truth:
    """Kinds of rows and how often each occurs.

    Attributes:
        reference: int64, shape (kinds,).
        baseline: What the baseline says.
        candidate: What the candidate says.
        chance: float64, of each kind.
    """

    reference: np.ndarray
    baseline: np.ndarray
    candidate: np.ndarray
    chance: np.ndarray

    def drop(self, weights: np.ndarray) -> np.ndarray:
        """Of macro F1, a share, where kinds count as ``weights`` says."""
        before, after = (
            TASK.weighted_metric("macro_f1", said, self.reference, weights) for said in (self.baseline, self.candidate)
        )
        return before - after


def truth(lost: float, gained: float, classes: int = 8, *, uneven: bool = False, rare: bool = False) -> Truth:
    """Rows that a model gets wrong are called as the next class.

    Args:
        lost: Share of each class's rows that only the baseline gets right.
        gained: That only the candidate gets right.
        classes: How many.
        uneven: Whether class k has 1/k of the first one's rows.
        rare: Whether the second half of the classes has all the loss.
    """
    size = 1 / np.arange(1, classes + 1) if uneven else np.ones(classes)
    label = np.arange(classes)
    other = (label + 1) % classes
    loses = np.where(label >= classes // 2, lost, 0.0) if rare else np.full(classes, lost)
    wins, wrong = np.full(classes, gained), np.full(classes, max(WRONG_IN_BOTH - gained, 0))
    kinds = [
        (label, label, label, 1 - loses - wins - wrong),
        (label, label, other, loses),
        (label, other, label, wins),
        (label, other, other, wrong),
    ]
    reference, baseline, candidate = (np.concatenate([kind[at] for kind in kinds]) for at in range(3))
    chance = np.concatenate([kind[3] * size for kind in kinds])
    return Truth(reference, baseline, candidate, chance / chance.sum())


def at_the_margin(margin: float, gained: float, **shape: bool) -> Truth:
    """The population whose macro F1 drops by ``margin``."""
    low, high = 0.0, 0.3
    for _ in range(40):
        middle = (low + high) / 2
        found = truth(middle, gained, **shape)
        low, high = (low, middle) if found.drop(found.chance[None])[0] > margin else (middle, high)
    return truth(high, gained, **shape)


def simulated_rates(
    population: Truth, rows: int, margin: float, confidence: float, evaluations: int, resamples: int, seed: int = 0
) -> tuple[Rates, Rates]:
    """How often the gate's bounds, and BCa's alone, pass and fail over simulated evaluations."""
    generator = np.random.default_rng(seed)
    right = population.baseline == population.reference, population.candidate == population.reference
    lost, gained = right[0] & ~right[1], right[1] & ~right[0]
    counts = generator.multinomial(rows, population.chance, size=evaluations)
    seen = population.drop(counts.astype(np.float64))
    least, most = drop_bounds(counts @ lost, counts @ gained, rows, confidence)
    aside = seen - (counts @ lost - counts @ gained) / rows
    bounds = []
    for drawn, estimate in zip(counts, seen, strict=True):
        found = population.drop(generator.multinomial(rows, drawn / rows, size=resamples).astype(np.float64))
        bounds.append(bca_bounds(float(estimate), found, acceleration(population.drop, drawn), confidence))
    alone = np.asarray(bounds)
    lower, upper = np.minimum(alone[:, 0], least + aside), np.maximum(alone[:, 1], most + aside)
    gate = Rates(float((upper <= margin).mean()), float((lower > margin).mean()))
    return gate, Rates(float((alone[:, 1] <= margin).mean()), float((alone[:, 0] > margin).mean()))
