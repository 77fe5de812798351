"""Shapes of input that models are timed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelmill.core.errors import UsageError
from modelmill.core.evidence import Cell
from modelmill.measuring.models import OpenModel
from modelmill.measuring.rounds import Call


def fit_cells(cells: Sequence[Cell], max_length: int) -> tuple[list[Cell], list[str]]:
    """Cells that a model can take, and what was cut, in words.

    Cells that become equal are measured once; the order stays, since the first cell is the one that is judged.

    Raises:
        UsageError: There is no cell.
    """
    if not cells:
        what = "there is no cell to measure"
        raise UsageError(what, where="cells", fix="name a batch size and a sequence length")
    fitted: list[Cell] = []
    notes: list[str] = []
    for cell in cells:
        cut = cell.model_copy(update={"sequence_length": min(cell.sequence_length, max_length)})
        if cut != cell:
            notes.append(
                f"batch {cell.batch_size}, length {cell.sequence_length} is measured at length {max_length}, "
                "the model's maximum"
            )
        if cut not in fitted:
            fitted.append(cut)
    return fitted, notes


def cell_calls(models: Mapping[str, OpenModel], cell: Cell, seed: int) -> dict[str, Call]:
    """Each model's forward pass over a batch of the cell's shape."""

    def call_of(model: OpenModel) -> Call:
        batch = model.sample(cell, seed)
        return lambda _: model.session.run(batch)

    return {name: call_of(model) for name, model in models.items()}
