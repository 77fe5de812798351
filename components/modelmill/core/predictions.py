"""The predictions artifact: ``predictions.json`` and one ``.npy`` file an array. Reproducible: it holds no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from modelmill.core.contract import JSON, Closed
from modelmill.core.evidence import Neighbours
from modelmill.core.manifest import write_json
from modelmill.core.served import Opponent, Served


class Predictions(Closed):
    """``predictions.json``."""

    format: int = 1
    task: str
    rows: str = Field(description="digest of the rows artifact's files that were predicted, sha256:…")
    count: int
    labels: list[str] = Field(default_factory=list)
    metrics: dict[str, JSON] = Field(description="name → value, as shares (0 to 1); per_class holds label → accuracy")
    neighbours: Neighbours | None = Field(None, description="what other batches do to a candidate's predictions")
    served: dict[Opponent, Served] = Field(
        default_factory=dict, description="what the channel serves on the same rows; an array each holds its answers"
    )
    arrays: list[str] = Field(
        description="names of the arrays: outputs (float32), predicted, reference (task's own), predicted_champion"
    )


def array_of(opponent: Opponent) -> str:
    """The array that holds an opponent's answers; `reference` alone are the right ones."""
    return f"predicted_{opponent.value}"


def write_predictions(directory: Path, document: Predictions, arrays: dict[str, np.ndarray]) -> None:
    """Write the artifact; every array's first axis is the row, in the order of ``rows.jsonl``."""
    for name in document.arrays:
        np.save(directory / f"{name}.npy", np.ascontiguousarray(arrays[name]), allow_pickle=False)
    write_json(directory / "predictions.json", document.model_dump(mode="json"))


def read_predictions(directory: Path) -> tuple[Predictions, dict[str, np.ndarray]]:
    """The artifact's document and its arrays by name."""
    document = Predictions.model_validate_json((directory / "predictions.json").read_bytes())
    arrays = {name: np.load(directory / f"{name}.npy", allow_pickle=False) for name in document.arrays}
    return document, arrays
