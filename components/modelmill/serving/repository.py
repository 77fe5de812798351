"""A lane's Triton model repository: text in, scores out, beside the model that it serves.

Below a lane's folder, ``serving/TARGET/`` is the repository that a server is pointed at. Its ``model.py`` finds graph
and tokenizer by a path relative to itself, so that a bundle holds their bytes once. On a GPU the graphs are models of
the ONNX Runtime backend, with TensorRT where the target says so, and ``model.py`` asks them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from modelmill.core.batch_plan import MAX_BATCH_ROWS
from modelmill.core.bundle import SERVING
from modelmill.core.evidence import Measurements, Neighbours
from modelmill.core.model import ModelDocument, Tensor
from modelmill.core.smoke import ServingPlan
from modelmill.targets.base import Runtime
from modelmill.targets.shape_profiles import profile_options

QUEUE_MICROSECONDS = 0
"""How long a request waits for others: only while the instance is busy anyway, so that a lone text never waits."""
_ON_GPU = {Runtime.ONNXRUNTIME_CUDA.value: False, Runtime.ONNXRUNTIME_TENSORRT.value: True}
"""Runtime → whether it is TensorRT's."""
_INSTANCES_ON_GPU = 2
"""One tokenises while the other's batch is on the GPU."""
_TYPES = {
    "int64": "TYPE_INT64", "int32": "TYPE_INT32", "float32": "TYPE_FP32", "float16": "TYPE_FP16",
}  # fmt: skip
_GRAPH_IS_ELSEWHERE = b"The graph lies at the lane's root: see default_model_filename in config.pbtxt.\n"
_NO_FOLDER = b"A file, so that Python writes nothing here: a bundle's files are those that bundle.json names.\n"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def unservable(document: ModelDocument, runtime: str) -> str | None:
    """Why a model has no serving files on a runtime, in words; None where it has them."""
    if runtime == Runtime.OPENVINO:
        return "the repository's Python runs ONNX Runtime, and this lane's model is made for OpenVINO"
    missing = [name for name in _TOKENIZER if name not in document.processors.get("tokenizer", [])]
    if missing:
        return f"the model has no {missing[0]}, which the server reads texts by"
    last = document.execution.stages[-1]
    outputs = [item for item in document.components[last.component].outputs if item.name in last.gives]
    if not document.labels or len(outputs) != 1 or len(outputs[0].shape) != 2:
        return f"the task {document.task} does not give each text a score for each label"
    return None


def plan_of(
    document: ModelDocument, model: str, runtime: str, measurements: Measurements, neighbours: Neighbours | None
) -> ServingPlan | None:
    """How a lane is served; None where it has no serving files.

    No timing enters, for the bundle's digest covers what comes of it: threads are those of the hardware class that was
    measured, the batch is the largest that evaluate predicted and timed, and texts of several requests stand in one
    batch only where the evaluation saw no prediction flip with its neighbours.

    Args:
        document: The candidate's.
        model: What the server calls it.
        runtime: The target's.
        measurements: Taken under the target's CPU limit.
        neighbours: What other batches do to the candidate's predictions; None: nobody tried.
    """
    if unservable(document, runtime):
        return None
    return ServingPlan(
        model=model,
        runtime=runtime,
        threads=measurements.hardware.threads,
        max_batch=MAX_BATCH_ROWS,
        together=neighbours is not None and neighbours.flips == 0,
    )


def files_of(document: ModelDocument, plan: ServingPlan, target: str) -> dict[str, bytes]:
    """The serving files, by their path below the lane's folder."""
    on_gpu, folder = plan.runtime in _ON_GPU, f"{SERVING}/{target}/{plan.model}"
    files = {
        f"{folder}/config.pbtxt": _render(
            "config.pbtxt.j2",
            plan=plan,
            classes=len(document.labels),
            artifact="../../..",
            on_server=on_gpu,
            instances=_INSTANCES_ON_GPU if on_gpu else 1,
            queue_microseconds=QUEUE_MICROSECONDS,
        ),
        f"{folder}/1/model.py": shipped_code(),
        # Triton's Python takes no word from its environment, and would write compiled files into the bundle.
        f"{folder}/1/__pycache__": _NO_FOLDER,
    }
    if on_gpu:
        for role, component in document.components.items():
            name = graph_name(plan.model, role)
            files[f"{SERVING}/{target}/{name}/config.pbtxt"] = _render(
                "graph.pbtxt.j2",
                plan=plan,
                name=name,
                # Relative to the version's folder, which is there for this file's sake.
                file=f"../../../../{component.file}",
                inputs=_tensors(component.inputs),
                outputs=_tensors(component.outputs),
                tensorrt=_ON_GPU[plan.runtime],
                profile=profile_options(component.inputs, document.shapes),
                queue_microseconds=QUEUE_MICROSECONDS,
            )
            files[f"{SERVING}/{target}/{name}/1/README"] = (
                b"The graph lies at the lane's root: see config.pbtxt above.\n"
            )
    return files


def graph_name(model: str, role: str) -> str:
    """What the server calls a graph of a GPU lane."""
    return f"{model}-{role}"


def shipped_code() -> bytes:
    """``model.py``."""
    return _source("triton_model.py").encode()


def write_files(directory: Path, files: dict[str, bytes]) -> None:
    """Write serving files below a lane's folder."""
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


def _tensors(tensors: Sequence[Tensor]) -> list[dict[str, str]]:
    """Without the first axis, which Triton adds: the batch's."""
    return [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "dims": ", ".join(str(size) if isinstance(size, int) else "-1" for size in tensor.shape[1:]),
        }
        for tensor in tensors
    ]


def _source(name: str) -> str:
    return (resources.files("modelmill.serving") / name).read_text("utf-8")


def _render(template: str, **context: object) -> bytes:
    environment = Environment(
        # Protocol buffers' text, not HTML: names go through `quoted`.
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"quoted": json.dumps, "triton": _TYPES.__getitem__}
    return environment.from_string(_source(template)).render(**context).encode()
