"""Ranges of activations on real rows, streamed: two numbers are kept for each value, whatever the number of rows.

onnxruntime.quantization's calibrators keep every output of every batch until the reader ends (onnxruntime#10503:
256 GB for BERT); here the graph itself reduces each value to its extremes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from modelmill.core.errors import DataError
from modelmill.core.model import ModelDocument
from modelmill.core.progress import Bar
from modelmill.core.rows import Row, read_dataset, read_rows
from modelmill.graphs import files
from modelmill.steps.calibrate_quantize.static import Range, observed
from modelmill.targets.onnxruntime_cpu import OnnxRuntimeSession, open_graph, session_options

MIN_ROWS = 8
"""Fewer rows say nothing about the range of anything."""
_LOW, _HIGH = "calibration.low.", "calibration.high."


def spread_rows(directory: Path, wanted: int) -> list[Row]:
    """At most ``wanted`` rows of a rows artifact, evenly spread: files sorted by label give rows of all labels.

    Raises:
        DataError: There are too few rows to calibrate on.
    """
    count = read_dataset(directory).count
    if count < MIN_ROWS:
        what = f"{count} rows are too few to calibrate on; static ranges need at least {MIN_ROWS}"
        raise DataError(what, where="data.calibrate", fix="name a larger split, or choose the dynamic scheme")
    taken = min(wanted, count)
    kept = {index * count // taken for index in range(taken)}
    return [row for index, row in enumerate(read_rows(directory)) if index in kept]


def find_ranges(
    document: ModelDocument,
    directory: Path,
    batches: Sequence[Mapping[str, np.ndarray]] | Iterator[Mapping[str, np.ndarray]],
    threads: int,
    bar: Bar,
) -> dict[str, dict[str, Range]]:
    """Smallest and largest value of every activation that static quantization needs.

    Later graphs of a chain see what the earlier ones give.

    Args:
        document: The float32 model.
        directory: Where it lies.
        batches: Encoded, padded batches.
        threads: To run on; the result does not depend on them.
        bar: Advanced by each batch.

    Returns:
        Role → value name → (smallest, largest).
    """
    with tempfile.TemporaryDirectory() as folder:
        watched = {role: _watch(directory, document, role, Path(folder), threads) for role in document.components}
        graphs = {role: graph for role, (graph, _) in watched.items()}
        ranges: dict[str, dict[str, Range]] = {role: {} for role in watched}
        session = _WatchedSession(document, graphs, {role: names for role, (_, names) in watched.items()}, ranges)
        for batch in batches:
            session.run(batch)
            bar.advance()
    return ranges


class _WatchedSession(OnnxRuntimeSession):
    """Runs the chain, and keeps the extremes that its graphs report."""

    def __init__(
        self,
        document: ModelDocument,
        graphs: Mapping[str, ort.InferenceSession],
        names: Mapping[str, Sequence[str]],
        ranges: dict[str, dict[str, Range]],
    ) -> None:
        super().__init__(document, graphs)
        self._names, self._ranges = names, ranges

    def run_graph(self, role: str, outputs: list[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        names = self._names[role]
        extremes = [f"{end}{name}" for name in names for end in (_LOW, _HIGH)]
        found = super().run_graph(role, [*outputs, *extremes], feeds)
        kept = self._ranges[role]
        for index, name in enumerate(names):
            low, high = (float(value) for value in found[len(outputs) + 2 * index : len(outputs) + 2 * index + 2])
            before = kept.get(name, (low, high))
            kept[name] = (min(before[0], low), max(before[1], high))
        return found[: len(outputs)]


def _watch(
    directory: Path, document: ModelDocument, role: str, folder: Path, threads: int
) -> tuple[ort.InferenceSession, list[str]]:
    model = files.load(directory / document.components[role].file)
    names = []
    for value in observed(model):
        for op_type, prefix in (("ReduceMin", _LOW), ("ReduceMax", _HIGH)):
            node = ir.node(op_type, [value], attributes={"keepdims": 0})
            node.outputs[0].name = f"{prefix}{value.name}"
            node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
            model.graph.append(node)
            model.graph.outputs.append(node.outputs[0])
        names.append(value.name or "")
    files.save(model, folder, role)
    return open_graph(folder / f"{role}.onnx", session_options(threads)), names
