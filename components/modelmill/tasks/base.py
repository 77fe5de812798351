"""What a task is. A task module imports no torch and no transformers: it is handed models and processors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from modelmill.core.contract import JSON
from modelmill.core.evidence import Metric
from modelmill.core.model import Execution
from modelmill.core.rows import Row

if TYPE_CHECKING:
    import numpy as np

Features: TypeAlias = "dict[str, np.ndarray]"
"""One row, encoded: input name → int64, shape (length,). No padding."""

Batch: TypeAlias = "dict[str, np.ndarray]"
"""Several rows, padded: input name → int64, shape (batch, sequence)."""


@dataclass(frozen=True)
class ExportUnit:
    """One graph to export.

    Attributes:
        role: The component's role in model.json.
        module: The torch module whose forward takes ``inputs`` by name.
        inputs: Names of the tensors it takes.
        outputs: Names of the tensors it gives, in the order of its output fields.
        dynamic_axes: Input or output name → axis → name: ``{"input_ids": {0: "batch", 1: "sequence"}}``.
    """

    role: str
    module: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic_axes: Mapping[str, Mapping[int, str]]


class Task(Protocol):
    """One ML task. One instance serves all steps; it has no state."""

    name: str
    """As recipes write it: ``text-classification``."""
    required_columns: tuple[str, ...]
    optional_columns: tuple[str, ...]
    auto_model: str
    """transformers' class that loads the checkpoint: ``AutoModelForSequenceClassification``."""
    metric: Metric
    """The primary metric; the gate judges it by rows that are right or wrong (the paired unit is the row)."""
    metrics_judged: tuple[Metric, ...]
    """What the gate may judge by: the primary metric, then others, all of them shares that are better when higher."""

    def check_row(self, row: Mapping[str, JSON]) -> str | None:
        """What is wrong with a row, naming the column, or None. ``row`` has the task's column names."""
        ...

    def label_of(self, row: Row) -> str | None:
        """The row's label, or None for tasks whose references are no labels."""
        ...

    def text_of(self, row: Row) -> str:
        """The row for people: its text, both texts of a pair joined by a bar."""
        ...

    def encode(self, processor: Any, rows: Sequence[Row], max_length: int) -> list[Features]:
        """Tokenise rows, each cut at ``max_length`` tokens, none padded.

        Args:
            processor: A transformers tokenizer, as loaded from the checkpoint.
            rows: In any order; the result has the same.
            max_length: Tokens, special ones included.
        """
        ...

    def collate(self, processor: Any, features: Sequence[Features], length: int | None = None) -> Batch:
        """Pad rows to ``length`` tokens, or to the longest of them."""
        ...

    def references(self, rows: Sequence[Row], labels: Sequence[str]) -> np.ndarray:
        """What is right for each row, as the loss takes it: int64, shape (rows,) for classification."""
        ...

    def sample(self, processor: Any, batch_size: int, length: int, seed: int = 0) -> Batch:
        """A batch of random valid tokens of exactly ``length``, unpadded: for tracing, parity and timing."""
        ...

    def export_units(self, model: Any, processor: Any | None = None) -> list[ExportUnit]:
        """The graphs that the loaded checkpoint becomes.

        Args:
            model: The checkpoint, loaded.
            processor: Its processor: a graph has no input that the processor does not give. Without it, what
                the architecture's processors usually give is assumed.
        """
        ...

    def execution(self, inputs: Mapping[str, Sequence[str]]) -> Execution:
        """How the exported graphs are run; ``inputs`` maps each role to the inputs its graph has."""
        ...

    def outputs_of(self, values: Mapping[str, Any]) -> Any:
        """The array to keep of what a run gave (by value name): logits, shape (batch, classes)."""
        ...

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Predictions in the form of `references`."""
        ...

    def correct(self, predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """bool, shape (rows,): whether each row counts as right. The paired unit of the gate."""
        ...

    def weighted_metric(
        self, name: str, predicted: np.ndarray, reference: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """One of `metrics_judged` where each row counts as often as its weight says: what a bootstrap asks for.

        Args:
            name: The metric's.
            predicted: As `decode` gives it, first axis the row.
            reference: As `references` gives it.
            weights: float64, shape (resamples, rows), not negative.

        Returns:
            float64, shape (resamples,): what `metrics` would say of rows repeated so often.
        """
        ...

    def metrics(self, predicted: np.ndarray, reference: np.ndarray, labels: Sequence[str]) -> dict[str, JSON]:
        """Name → share; the primary metric's name among them, ``per_class`` a mapping label → share."""
        ...
