"""A model artifact's graphs, one after another, whatever runtime computes each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from modelmill.core.errors import ModelError
from modelmill.core.model import ModelDocument, Stage


class RefusedInputError(ValueError):
    """A runtime refuses the values that a graph is given; the message is one line."""


class Graph(Protocol):
    """One loaded graph."""

    @property
    def dtypes(self) -> Mapping[str, np.dtype]:
        """Input name → dtype that the graph declares."""
        ...

    def run(self, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The arrays of ``outputs``, in their order; they belong to the caller.

        Raises:
            RefusedInputError: The runtime does not take these values.
        """
        ...


class ChainSession:
    """A model artifact's graphs, loaded, and the order in which they run."""

    def __init__(self, document: ModelDocument, graphs: Mapping[str, Graph]) -> None:
        self._document = document
        self._graphs = graphs

    def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run all graphs on one padded batch.

        Args:
            batch: Input name → shape (batch, sequence); columns that no graph takes are ignored, and a column's
                dtype becomes the one its graph declares.

        Returns:
            Value name → array, for every value that the execution gives.

        Raises:
            ModelError: A graph takes a column that the batch lacks, or refuses the values it gets.
        """
        values: dict[str, np.ndarray] = dict(batch)
        given: dict[str, np.ndarray] = {}
        for stage in self._document.execution.stages:
            outputs = self._run_stage(stage, values)
            named = {value: outputs[output] for output, value in stage.gives.items()}
            values.update(named)
            given.update(named)
        return given

    def _run_stage(self, stage: Stage, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        role, names, graph = stage.component, list(stage.gives), self._graphs[stage.component]
        missing = sorted(value for value in stage.feeds.values() if value not in values)
        if missing:
            what = f"the graph {role!r} takes {', '.join(missing)}, which the batch does not have"
            raise ModelError(what, fix="encode the rows with the processor that the artifact holds")
        feeds: dict[str, np.ndarray] = {
            name: np.asarray(values[value], dtype=graph.dtypes[name]) for name, value in stage.feeds.items()
        }
        try:
            return dict(zip(names, graph.run(names, feeds), strict=True))
        except RefusedInputError as error:
            shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feeds.items())
            what = f"the graph {role!r} refuses its input ({shapes}): {error}"
            raise ModelError(what, fix="check that the texts were encoded with this model's tokenizer") from None


def check_names(role: str, kind: str, declared: list[str], found: list[str]) -> None:
    """Check a graph's inputs or outputs against model.json.

    Raises:
        ModelError: They differ.
    """
    if sorted(declared) != sorted(found):
        what = f"model.json gives the graph {role!r} the {kind} {declared}, and the file has {found}"
        raise ModelError(what, where=f"components.{role}.{kind}", fix="run the line again to make the artifact anew")


def check_stages(document: ModelDocument) -> None:
    """Check that the execution names graphs, inputs and outputs that are there.

    Raises:
        ModelError: It names another.
    """
    for index, stage in enumerate(document.execution.stages):
        where = f"execution.stages.{index}"
        component = document.components.get(stage.component)
        if component is None:
            what = f"a stage runs the graph {stage.component!r}, which model.json does not have"
            raise ModelError(what, where=where, fix=f"the graphs are: {', '.join(sorted(document.components))}")
        outputs = {item.name for item in component.outputs}
        if {item.name for item in component.inputs} != set(stage.feeds) or not set(stage.gives) <= outputs:
            what = f"a stage does not feed or read the graph {stage.component!r} by the names that it has"
            raise ModelError(what, where=where, fix="run the line again to make the artifact anew")


def first_line(error: Exception) -> str:
    """A runtime's message, cut to what fits into one of ours."""
    return str(error).strip().splitlines()[0]
