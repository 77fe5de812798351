"""OpenVINO on a CPU: it reads the same ONNX file as ONNX Runtime.

Source of the options: docs.openvino.ai, CPU device, "Supported Properties".
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from modelmill.core.errors import ModelError
from modelmill.core.model import read_model
from modelmill.targets.base import Precision
from modelmill.targets.chain import ChainSession, RefusedInputError, check_names, check_stages, first_line


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Let the package openvino_telemetry be absent: importing OpenVINO sends an event by it, unasked."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # how Python marks a module that cannot be imported
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


with _no_telemetry():
    import openvino as ov

_HINTS = {Precision.FLOAT32.value: "f32", Precision.BF16.value: "bf16"}
"""What is not int8 is computed in."""


class OpenVinoGraph:
    """One graph; several threads may run it at once.

    One compiled model runs one batch at a time (its stream holds a lock), so that each batch that runs beside others
    has a compiled model of its own, made when it is first needed.
    """

    def __init__(self, model: ov.Model, options: Mapping[str, str | int | bool]) -> None:
        self._model, self._options = model, dict(options)
        self.dtypes = {item.any_name: np.dtype(item.element_type.to_dtype()) for item in model.inputs}
        self._numbers = {name: index for index, item in enumerate(model.outputs) for name in item.names}
        self._free: list[ov.InferRequest] = [self._request()]
        self._lock = threading.Lock()

    def run(self, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The arrays of ``outputs``, in their order.

        Raises:
            RefusedInputError: OpenVINO does not take these values.
        """
        with self._lock:
            request = self._free.pop() if self._free else None
        request = request or self._request()
        try:
            found = request.infer(dict(feeds), share_inputs=True, share_outputs=True)
            # Copied: the next batch is computed into the same memory.
            return [np.array(found[self._numbers[name]]) for name in outputs]
        except RuntimeError as error:
            raise RefusedInputError(_reason(error)) from None
        finally:
            with self._lock:
                self._free.append(request)

    def _request(self) -> ov.InferRequest:
        return ov.Core().compile_model(self._model, "CPU", self._options).create_infer_request()


def open_session(directory: Path, threads: int) -> ChainSession:
    """Load the model artifact in ``directory`` to run on ``threads`` threads.

    Args:
        directory: What an export, optimize or calibrate-quantize step wrote.
        threads: Threads within an operator; operators run one after another.

    Raises:
        ModelError: A graph is damaged, or its inputs and outputs are not those of model.json.
    """
    document = read_model(directory)
    options: dict[str, str | int | bool] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # By itself OpenVINO computes in bf16 where the processor can, whatever the graph says.
        "INFERENCE_PRECISION_HINT": _HINTS[document.rest],
        # Sessions side by side would all be pinned to the first processors.
        "ENABLE_CPU_PINNING": False,
        **document.session,
    }
    graphs = {}
    for role, component in document.components.items():
        path = directory / component.file
        try:
            model = ov.Core().read_model(path)
            graphs[role] = OpenVinoGraph(model, options)
        except RuntimeError as error:
            what = f"OpenVINO {ov.__version__.partition('-')[0]} cannot load the graph: {_reason(error)}"
            raise ModelError(what, where=str(path), fix="run the line again to make the graph anew") from None
        check_names(role, "inputs", [item.name for item in component.inputs], [i.any_name for i in model.inputs])
        check_names(role, "outputs", [item.name for item in component.outputs], [o.any_name for o in model.outputs])
    check_stages(document)
    return ChainSession(document, graphs)


def _reason(error: Exception) -> str:
    """OpenVINO's last line: the ones before it name the source files that the exception passed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return first_line(error) if not lines else lines[-1]
