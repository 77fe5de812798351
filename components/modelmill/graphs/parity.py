"""Parity: whether two ways to run a model give the same numbers, on shapes that break wrong exports."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelmill.core.contract import JSON
from modelmill.core.errors import ModelError
from modelmill.core.progress import Bar

Values = Mapping[str, np.ndarray]
Sample = Callable[[int, int, bool], Values]
"""(batch size, length, whether rows are padded) → batch."""
BATCH_SIZES = (1, 2, 7)
LENGTHS = (1, 5, 64)
"""Lengths besides the model's maximum; 1 and an odd batch break what a tracer specialised."""


@dataclass(frozen=True)
class Parity:
    """The largest deviation found.

    Attributes:
        relative: Largest absolute difference over the largest magnitude of the reference, for the worst value.
        value: The value it was found in.
        shapes: (batch size, length) of all batches compared.
    """

    relative: float
    value: str
    shapes: tuple[tuple[int, int], ...]

    def fact(self) -> dict[str, JSON]:
        """The deviation as it was found, for a report."""
        shapes: list[JSON] = [f"{batch_size}x{length}" for batch_size, length in self.shapes]
        return {"relative_deviation": float(f"{self.relative:.2e}"), "value": self.value, "shapes": shapes}

    def bound(self) -> dict[str, JSON]:
        """The deviation rounded up to a power of ten, for model.json.

        A model's bytes are no place for the last bits of the machine that checked it.
        """
        decade = 10.0 ** math.ceil(math.log10(self.relative)) if self.relative > 0 else 0.0
        return {"relative_deviation_at_most": float(f"{decade:.0e}"), "value": self.value}

    def words(self, reference: str) -> str:
        """One line for people."""
        return f"at most {self.relative:.1e} of the scale of {self.value} from {reference} on {len(self.shapes)} shapes"


def shapes(max_length: int) -> Iterator[tuple[int, int]]:
    """(batch size, length) of the grid: every batch size with every length, the model's maximum among them."""
    lengths = sorted({*(length for length in LENGTHS if length <= max_length), max_length})
    return ((batch_size, length) for length in lengths for batch_size in BATCH_SIZES)


def compare(
    reference: Callable[[Values], Values],
    candidate: Callable[[Values], Values],
    sample: Sample,
    grid: Sequence[tuple[int, int]],
    bar: Bar,
) -> Parity:
    """Run both on the grid; the largest batches have padded rows beside a whole one.

    The deviation of a value is relative to the largest magnitude that the reference gives anywhere on the grid, so
    that a small batch of small numbers is not judged more strictly than the model's scale.

    Raises:
        ModelError: A shape differs, or a value is not finite.
    """
    largest: dict[str, float] = {}
    difference: dict[str, float] = {}
    for batch_size, length in grid:
        batch = sample(batch_size, length, batch_size == max(BATCH_SIZES))
        wanted, found = reference(batch), candidate(batch)
        for name, array in wanted.items():
            scale, apart = _apart(name, np.asarray(array), np.asarray(found[name]))
            largest[name] = max(largest.get(name, 0.0), scale)
            difference[name] = max(difference.get(name, 0.0), apart)
        bar.advance()
    tiny = float(np.finfo(np.float32).tiny)
    relative = {name: difference[name] / max(largest[name], tiny) for name in largest}
    worst = max(relative, key=lambda name: relative[name])
    return Parity(relative=relative[worst], value=worst, shapes=tuple(grid))


def require(parity: Parity, bound: float, what_differs: str) -> None:
    """Refuse a deviation beyond ``bound``.

    Raises:
        ModelError: It is beyond.
    """
    if not parity.relative <= bound:
        what = f"{what_differs}: {parity.value} deviates by {parity.relative:.2e} of its scale, {bound:.0e} is allowed"
        raise ModelError(what, fix="keep the graph as it was, or raise max_relative_deviation if the task bears it")


def _apart(name: str, wanted: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    if wanted.shape != found.shape:
        what = f"{name} has the shape {list(found.shape)} where {list(wanted.shape)} is right"
        raise ModelError(what, fix="the graph fixes an axis that varies: export it with another sample")
    if not (np.isfinite(wanted).all() and np.isfinite(found).all()):
        what = f"{name} holds values that are not finite"
        raise ModelError(what, fix="check the model's weights: it cannot be served like this")
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    return float(np.abs(wanted).max(initial=0.0)), float(np.abs(wanted - found).max(initial=0.0))
