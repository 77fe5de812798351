"""Evaluations of rows that belong together, drawn from a truth at the margin, and what would be said of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelmill.steps.gate import bootstrap
from modelmill.steps.gate.estimates import Paired
from modelmill.steps.gate.units import ByUnit, Units

MARGIN = 1.0
"""Points; the true drop of every population."""
PATTERNS = {
    "whole units": (0.01, 1.0, 0.0),
    "one-sided": (0.02, 0.5, 0.0),
    "sparse": (0.04, 0.375, 0.125),
    "frequent": (0.2, 0.2, 0.15),
}
"""Share of units that the candidate treats otherwise; in these the share of lost rows, and of gained ones."""


@dataclass(frozen=True)
class Rates:
    """Shares of evaluations that pass, and that fail."""

    passed: float
    failed: float


def draw(generator: np.random.Generator, units: int, pattern: str, *, uneven: bool) -> ByUnit:
    """One evaluation: units of four rows, or of four on average (geometric)."""
    share, lose, gain = PATTERNS[pattern]
    size = generator.geometric(0.25, units) if uneven else np.full(units, 4)
    other = generator.random(units) < share
    lost = np.where(other, generator.binomial(size, lose), 0)
    gained = np.where(other, generator.binomial(size - lost, gain / (1 - lose) if lose < 1 else 0), 0)
    table = np.stack([lost, gained, size - lost - gained], axis=1).astype(np.float64)
    profiles, counts = np.unique(table, axis=0, return_counts=True)
    rows = int(size.sum())

    def values(model: str, weights: np.ndarray) -> np.ndarray:
        whole = weights.sum(axis=1)
        wrong = weights[:, 1] if model == "baseline" else weights[:, 0]
        return np.asarray((whole - wrong) / whole)

    paired = Paired("accuracy", rows, int(lost.sum()), int(gained.sum()), rows - int(lost.sum()))
    found = Units(profiles, counts.astype(np.int64))
    return ByUnit("accuracy", paired, found, profiles[:, 0] - profiles[:, 1], "conversation", values)


def rates(units: int, pattern: str, *, uneven: bool, evaluations: int, resamples: int, seed: int = 1) -> list[Rates]:
    """What the step says of evaluations, what the bootstrap alone would, and what Tango's interval of rows would."""
    generator = np.random.default_rng(seed)
    decided = []
    for _ in range(evaluations):
        compared = draw(generator, units, pattern, uneven=uneven)

        def drop(weights: np.ndarray, of: ByUnit = compared) -> np.ndarray:
            kinds = weights @ of.units_found.kinds
            return of.values("baseline", kinds) - of.values("candidate", kinds)

        made = bootstrap.Bootstrap.of(drop, compared.units_found.counts, resamples=resamples)
        compared.__dict__["_drop"] = made
        alone = [100 * bound for bound in made.bounds(0.95)]
        bounds = (compared.drop_bounds(0.95), alone, compared.paired.drop_bounds(0.95))
        decided.append([(upper <= MARGIN, lower > MARGIN) for lower, upper in bounds])
    shares = np.asarray(decided).mean(axis=0)
    return [Rates(float(passed), float(failed)) for passed, failed in shares]
