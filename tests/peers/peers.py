"""The peers: which environment makes each, and what runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
import torch

Run = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""A padded batch → logits, shape (batch, classes)."""
Environment = Literal["project", "optimum", "peers"]


@dataclass(frozen=True)
class Peer:
    """Another way to a fast model.

    Attributes:
        name: In the table.
        engine: What runs it: ties are told apart from wins by it.
        made_by: `make_peer.PEERS`' name, or None: it is made in this process.
        environment: Where it is made.
        open_model: (checkpoint, exported graph, what was made, threads) → what runs it.
    """

    name: str
    engine: Literal["pytorch", "onnxruntime", "openvino"]
    made_by: str | None
    environment: Environment
    open_model: Callable[[Path, Path, Path, int], Run]


def _torch(checkpoint: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()


def _torch_run(model: Any, threads: int) -> Run:
    torch.set_num_threads(threads)

    def run(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = model(
                **{name: torch.from_numpy(value) for name, value in batch.items()}
            ).logits.numpy()
        return logits

    return run


def eager(checkpoint: Path, exported: Path, made: Path, threads: int) -> Run:
    """As ``from_pretrained`` gives it."""
    return _torch_run(_torch(checkpoint), threads)


def compiled(checkpoint: Path, exported: Path, made: Path, threads: int) -> Run:
    """torch.compile, its default mode."""
    return _torch_run(torch.compile(_torch(checkpoint), dynamic=True), threads)


def torch_int8(checkpoint: Path, exported: Path, made: Path, threads: int) -> Run:
    """PyTorch's dynamic int8 of linear layers."""
    model = torch.ao.quantization.quantize_dynamic(_torch(checkpoint), {torch.nn.Linear}, dtype=torch.qint8)
    return _torch_run(model, threads)


def _onnx(path: Path, threads: int) -> Run:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    return lambda batch: session.run(None, {name: batch[name] for name in names})[0]


def onnx_exported(checkpoint: Path, exported: Path, made: Path, threads: int) -> Run:
    """The exported float32 graph."""
    return _onnx(exported, threads)


def onnx_made(checkpoint: Path, exported: Path, made: Path, threads: int) -> Run:
    """A graph that a peer made."""
    return _onnx(made / "model.onnx", threads)


def _openvino(path: Path, threads: int) -> Run:
    import openvino

    core = openvino.Core()
    model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_NUM_THREADS": threads})
    names = [item.any_name for item in model.inputs]
    request = model.create_infer_request()
    return lambda batch: np.array(request.infer({name: batch[name] for name in names})[0])


def openvino_exported(checkpoint: Path, exported: Path, made: Path, threads: int) -> Run:
    """OpenVINO's default on the exported graph: bf16 where the processor has it."""
    return _openvino(exported, threads)


def openvino_made(checkpoint: Path, exported: Path, made: Path, threads: int) -> Run:
    """A model that NNCF made."""
    return _openvino(made / "model.xml", threads)


PEERS: tuple[Peer, ...] = (
    Peer("PyTorch eager", "pytorch", None, "project", eager),
    Peer("torch.compile", "pytorch", None, "project", compiled),
    Peer("PyTorch dynamic int8", "pytorch", None, "project", torch_int8),
    Peer("ONNX Runtime float32", "onnxruntime", None, "project", onnx_exported),
    Peer("ONNX Runtime dynamic int8", "onnxruntime", "ort-dynamic", "project", onnx_made),
    Peer("ONNX Runtime optimizer, dynamic int8", "onnxruntime", "ort-optimizer-dynamic", "project", onnx_made),
    Peer("ONNX Runtime static int8", "onnxruntime", "ort-static", "project", onnx_made),
    Peer("optimum dynamic int8", "onnxruntime", "optimum-dynamic", "optimum", onnx_made),
    Peer("optimum static int8", "onnxruntime", "optimum-static", "optimum", onnx_made),
    Peer("OpenVINO", "openvino", None, "project", openvino_exported),
    Peer("OpenVINO + NNCF int8", "openvino", "nncf", "peers", openvino_made),
    Peer("OpenVINO + NNCF, accuracy control", "openvino", "nncf-accuracy-control", "peers", openvino_made),
    Peer("Olive auto-opt int8", "onnxruntime", "olive", "peers", onnx_made),
)
