"""ONNX Runtime on a CPU: its own provider, one process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from modelmill.core.errors import ModelError
from modelmill.core.model import ModelDocument, Stage, read_model

# ONNX Runtime's exceptions have no base of their own.
_REFUSALS = (
    ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.NoSuchFile, ort_errors.NoModel, ort_errors.EngineError,
    ort_errors.RuntimeException, ort_errors.InvalidProtobuf, ort_errors.NotImplemented, ort_errors.InvalidGraph,
    ort_errors.EPFail,
)  # fmt: skip
_DTYPES = {
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32, "tensor(float16)": np.float16,
    "tensor(double)": np.float64, "tensor(bool)": np.bool_, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8,
}  # fmt: skip
_ERRORS_ONLY = 3
"""ONNX Runtime's severity from which it writes to stderr."""


class OnnxRuntimeSession:
    """A model artifact's graphs, loaded, and the order in which they run."""

    def __init__(self, document: ModelDocument, graphs: Mapping[str, ort.InferenceSession]) -> None:
        self._document = document
        self._graphs = graphs
        self._dtypes = {
            role: {item.name: _DTYPES[item.type] for item in graph.get_inputs()} for role, graph in graphs.items()
        }

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

    def run_graph(self, role: str, outputs: list[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run one graph: the arrays of ``outputs``, in their order."""
        return cast("list[np.ndarray]", self._graphs[role].run(outputs, feeds))

    def _run_stage(self, stage: Stage, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        role, names = stage.component, list(stage.gives)
        missing = sorted(value for value in stage.feeds.values() if value not in values)
        if missing:
            what = f"the graph {role!r} takes {', '.join(missing)}, which the batch does not have"
            raise ModelError(what, fix="encode the rows with the processor that the artifact holds")
        dtypes = self._dtypes[role]
        feeds: dict[str, np.ndarray] = {
            name: np.asarray(values[value], dtype=dtypes[name]) for name, value in stage.feeds.items()
        }
        try:
            return dict(zip(names, self.run_graph(role, names, feeds), strict=True))
        except _REFUSALS as error:
            shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feeds.items())
            what = f"the graph {role!r} refuses its input ({shapes}): {_first_line(error)}"
            raise ModelError(what, fix="check that the texts were encoded with this model's tokenizer") from None


def open_session(directory: Path, threads: int) -> OnnxRuntimeSession:
    """Load the model artifact in ``directory`` to run on ``threads`` threads.

    Args:
        directory: What an export, optimize or calibrate-quantize step wrote.
        threads: Threads within an operator; operators run one after another.

    Raises:
        ModelError: A graph is damaged, or its inputs and outputs are not those of model.json.
    """
    document = read_model(directory)
    options = session_options(threads)
    graphs = {}
    for role, component in document.components.items():
        graph = open_graph(directory / component.file, options)
        _check_names(role, "inputs", [item.name for item in component.inputs], [i.name for i in graph.get_inputs()])
        _check_names(role, "outputs", [item.name for item in component.outputs], [i.name for i in graph.get_outputs()])
        graphs[role] = graph
    _check_stages(document)
    return OnnxRuntimeSession(document, graphs)


def session_options(threads: int) -> ort.SessionOptions:
    """Options for serving: ``threads`` within an operator, operators in sequence, threads that spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    return options


def open_graph(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """One graph on the CPU provider.

    Raises:
        ModelError: ONNX Runtime cannot load it.
    """
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _REFUSALS as error:
        what = f"ONNX Runtime {ort.__version__} cannot load the graph: {_first_line(error)}"
        raise ModelError(what, where=str(path), fix="run the line again to make the graph anew") from None


def _check_names(role: str, kind: str, declared: list[str], found: list[str]) -> None:
    if sorted(declared) != sorted(found):
        what = f"model.json gives the graph {role!r} the {kind} {declared}, and the file has {found}"
        raise ModelError(what, where=f"components.{role}.{kind}", fix="run the line again to make the artifact anew")


def _check_stages(document: ModelDocument) -> None:
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


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
