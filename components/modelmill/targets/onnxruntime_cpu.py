"""ONNX Runtime on a CPU: its own provider, one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from modelmill.core.errors import ModelError
from modelmill.core.model import Component, read_model
from modelmill.targets.chain import ChainSession, RefusedInputError, check_names, check_stages, first_line

# ONNX Runtime's exceptions have no base of their own.
REFUSALS = (
    ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.NoSuchFile, ort_errors.NoModel, ort_errors.EngineError,
    ort_errors.RuntimeException, ort_errors.InvalidProtobuf, ort_errors.NotImplemented, ort_errors.InvalidGraph,
    ort_errors.EPFail,
)  # fmt: skip
_DTYPES = {
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32, "tensor(float16)": np.float16,
    "tensor(double)": np.float64, "tensor(bool)": np.bool_, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8,
}  # fmt: skip
LEFT_OUT = ("SkipLayerNormFusion",)
"""Fusions of ONNX Runtime that cost on a CPU: a sum and its normalisation are faster apart."""
_ERRORS_ONLY = 3
"""ONNX Runtime's severity from which it writes to stderr."""


class OnnxRuntimeGraph:
    """One graph; several threads may run it at once."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.dtypes = {item.name: np.dtype(_DTYPES[item.type]) for item in session.get_inputs()}

    def run(self, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The arrays of ``outputs``, in their order.

        Raises:
            RefusedInputError: ONNX Runtime does not take these values.
        """
        try:
            return cast("list[np.ndarray]", self._session.run(list(outputs), dict(feeds)))
        except REFUSALS as error:
            raise RefusedInputError(first_line(error)) from None


def open_session(directory: Path, threads: int) -> ChainSession:
    """Load the model artifact in ``directory`` to run on ``threads`` threads.

    Args:
        directory: What an export, optimize or calibrate-quantize step wrote.
        threads: Threads within an operator; operators run one after another.

    Raises:
        ModelError: A graph is damaged, or its inputs and outputs are not those of model.json.
    """
    options = session_options(threads)
    for name, value in read_model(directory).session.items():
        options.add_session_config_entry(name, value)
    return open_chain(directory, lambda component: open_graph(directory / component.file, options))


def open_chain(directory: Path, open_one: Callable[[Component], ort.InferenceSession]) -> ChainSession:
    """Load every graph of a model artifact, on any of ONNX Runtime's providers.

    Args:
        directory: The artifact.
        open_one: Loads one graph of it.

    Raises:
        ModelError: A graph's inputs and outputs are not those of model.json.
    """
    document = read_model(directory)
    graphs = {}
    for role, component in document.components.items():
        graph = open_one(component)
        check_names(role, "inputs", [item.name for item in component.inputs], [i.name for i in graph.get_inputs()])
        check_names(role, "outputs", [item.name for item in component.outputs], [i.name for i in graph.get_outputs()])
        graphs[role] = OnnxRuntimeGraph(graph)
    check_stages(document)
    return ChainSession(document, graphs)


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
        return ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=[*LEFT_OUT]
        )
    except REFUSALS as error:
        what = f"ONNX Runtime {ort.__version__} cannot load the graph: {first_line(error)}"
        raise ModelError(what, where=str(path), fix="run the line again to make the graph anew") from None
