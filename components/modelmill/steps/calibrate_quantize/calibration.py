"""What activations look like on real rows, streamed: memory follows one batch, whatever the number of rows.

onnxruntime.quantization's calibrators keep every output of every batch until the reader ends (onnxruntime#10503:
256 GB for BERT). Here a graph reduces each value to its extremes by itself, or gives its values to a histogram of
32 KB that counts them and forgets them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from modelmill.core.batch_plan import plan_batches
from modelmill.core.errors import DataError
from modelmill.core.model import ModelDocument
from modelmill.core.progress import Bar
from modelmill.core.rows import Row, read_dataset, read_rows
from modelmill.graphs import files
from modelmill.steps.calibrate_quantize.contract import Calibration
from modelmill.steps.calibrate_quantize.histograms import Histogram, Range
from modelmill.steps.calibrate_quantize.memory_budget import Budget
from modelmill.targets.chain import ChainSession
from modelmill.targets.onnxruntime_cpu import OnnxRuntimeGraph, open_graph, session_options
from modelmill.tasks.base import Batch, Task

MIN_ROWS = 8
"""Fewer rows say nothing about the range of anything."""
_AT_A_TIME = 256
"""Rows that are encoded, and sorted by length, together."""
_LOW, _HIGH = "calibration.low.", "calibration.high."
Pick = Callable[[ir.Model], list[ir.Value]]
"""Which values of a graph are watched."""


def spread_rows(directory: Path, wanted: int) -> Iterator[Row]:
    """At most ``wanted`` rows of a rows artifact, evenly spread: files sorted by label give rows of all labels."""
    count = read_dataset(directory).count
    taken = min(wanted, count)
    kept = {index * count // taken for index in range(taken)}
    return (row for index, row in enumerate(read_rows(directory)) if index in kept)


def require_rows(directory: Path, task: Task) -> None:
    """Check that rows can be calibrated on.

    Raises:
        DataError: They are too few, or another task's.
    """
    dataset = read_dataset(directory)
    require_task(directory, task, "data.calibrate")
    if dataset.count < MIN_ROWS:
        what = f"{dataset.count} rows are too few to calibrate on; ranges of values need at least {MIN_ROWS}"
        fix = "name a larger split, or allow a precision that needs none: float32; on onnxruntime also scheme: dynamic"
        raise DataError(what, where="data.calibrate", fix=fix)


def require_task(directory: Path, task: Task, where: str) -> None:
    """Check that rows are a task's.

    Raises:
        DataError: They are another's.
    """
    found = read_dataset(directory).task
    if found != task.name:
        what = f"the rows are for the task {found}, and the model's is {task.name}"
        raise DataError(what, where=where, fix="name rows of the model's own task")


def calibration_batches(
    task: Task, processor: Any, rows: Iterable[Row], max_length: int, bar: Bar, budget: Budget | None = None
) -> Iterator[Mapping[str, np.ndarray]]:
    """Rows encoded and padded in batches of like length, 256 rows ahead at most.

    Args:
        task: Encodes and pads.
        processor: The model's tokenizer.
        rows: Read as they are needed.
        max_length: Tokens at which texts are cut.
        bar: Advanced by rows.
        budget: Of memory; None: batches are planned as everywhere.

    Raises:
        RecipeError: The budget does not hold the model and one row.
    """
    waiting = iter(rows)
    while some := list(islice(waiting, _AT_A_TIME)):
        features = task.encode(processor, some, max_length)
        if budget is not None:
            for count, batch in budget.batches(task, processor, features):
                yield batch
                bar.advance(count)
            continue
        for planned in plan_batches([len(next(iter(row.values()))) for row in features]).batches:
            padded: Batch = task.collate(processor, [features[index] for index in planned])
            yield padded
            bar.advance(len(planned))


def find_ranges(
    document: ModelDocument,
    directory: Path,
    batches: Iterable[Mapping[str, np.ndarray]],
    calibration: Calibration,
    pick: Mapping[str, Pick],
    threads: int,
) -> dict[str, dict[str, Range]]:
    """The range of every activation that static quantization needs.

    Later graphs of a chain see what the earlier ones give.

    Args:
        document: The float32 model.
        directory: Where it lies.
        batches: Encoded, padded batches.
        calibration: How ranges are taken.
        pick: Role → which values.
        threads: To run on; the result does not depend on them.

    Returns:
        Role → value name → (smallest, largest).
    """
    if calibration is not Calibration.MINMAX:
        histograms = watch(document, directory, batches, pick, Histogram, threads)
        return {
            role: {name: seen.range(calibration) for name, seen in values.items()}
            for role, values in histograms.items()
        }
    with tempfile.TemporaryDirectory() as folder:
        graphs = {role: _extremes_of(directory, document, role, pick[role], Path(folder), threads) for role in pick}
        _run(ChainSession(document, graphs), batches)
    return {role: graph.ranges for role, graph in graphs.items()}


class Observer(Protocol):
    """Keeps something small of all the values that it is shown."""

    def add(self, values: np.ndarray) -> None:
        """Look at the values of one batch."""
        ...


Seen = TypeVar("Seen", bound=Observer)


def watch(
    document: ModelDocument,
    directory: Path,
    batches: Iterable[Mapping[str, np.ndarray]],
    pick: Mapping[str, Pick],
    make: Callable[[], Seen],
    threads: int,
) -> dict[str, dict[str, Seen]]:
    """Show values of a model's graphs to observers, batch after batch.

    Args:
        document: The float32 model.
        directory: Where it lies.
        batches: Encoded, padded batches.
        pick: Role → which values.
        make: Makes an observer; each value has its own.
        threads: To run on.

    Returns:
        Role → value name → its observer.
    """
    seen: dict[str, dict[str, Seen]] = {}
    graphs = {}
    with tempfile.TemporaryDirectory() as folder:
        for role, values in pick.items():
            model = files.load(directory / document.components[role].file)
            watched = values(model)
            seen[role] = {value.name or "": make() for value in watched}
            for value in watched:
                if not value.is_graph_output():
                    value.type = ir.TensorType(ir.DataType.FLOAT)
                    model.graph.outputs.append(value)
            graphs[role] = _WatchedGraph(_opened(model, Path(folder), role, threads), seen[role])
        _run(ChainSession(document, graphs), batches)
    return seen


class _WatchedGraph(OnnxRuntimeGraph):
    """A graph that shows its values to their observers."""

    def __init__(self, session: ort.InferenceSession, seen: Mapping[str, Observer]) -> None:
        super().__init__(session)
        self._seen = seen

    def run(self, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        found = super().run([*outputs, *self._seen], feeds)
        for observer, values in zip(self._seen.values(), found[len(outputs) :], strict=True):
            observer.add(values)
        return found[: len(outputs)]


class _ReducedGraph(OnnxRuntimeGraph):
    """A graph that reports its values' extremes, and keeps them."""

    def __init__(self, session: ort.InferenceSession, names: Sequence[str]) -> None:
        super().__init__(session)
        self._names = names
        self.ranges: dict[str, Range] = {}

    def run(self, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        extremes = [f"{end}{name}" for name in self._names for end in (_LOW, _HIGH)]
        found = super().run([*outputs, *extremes], feeds)
        for index, name in enumerate(self._names):
            low, high = (float(value) for value in found[len(outputs) + 2 * index : len(outputs) + 2 * index + 2])
            before = self.ranges.get(name, (low, high))
            self.ranges[name] = (min(before[0], low), max(before[1], high))
        return found[: len(outputs)]


def _extremes_of(
    directory: Path, document: ModelDocument, role: str, pick: Pick, folder: Path, threads: int
) -> _ReducedGraph:
    model = files.load(directory / document.components[role].file)
    names = []
    for value in pick(model):
        for op_type, prefix in (("ReduceMin", _LOW), ("ReduceMax", _HIGH)):
            node = ir.node(op_type, [value], attributes={"keepdims": 0})
            node.outputs[0].name = f"{prefix}{value.name}"
            node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
            model.graph.append(node)
            model.graph.outputs.append(node.outputs[0])
        names.append(value.name or "")
    return _ReducedGraph(_opened(model, folder, role, threads), names)


def _opened(model: ir.Model, folder: Path, role: str, threads: int) -> ort.InferenceSession:
    files.save(model, folder, role)
    return open_graph(folder / f"{role}.onnx", session_options(threads))


def _run(session: ChainSession, batches: Iterable[Mapping[str, np.ndarray]]) -> None:
    for batch in batches:
        session.run(batch)
