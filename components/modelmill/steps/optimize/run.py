"""Fuse a model's graphs for the runtime that will serve them."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from modelmill.core import hardware
from modelmill.core.contract import JSON, Report
from modelmill.core.model import copy_companions, read_model, write_model
from modelmill.core.progress import Progress
from modelmill.graphs import files, parity
from modelmill.graphs.fusion import attention_left, fuse_for_onnxruntime_cpu, leave_to_runtime
from modelmill.steps.optimize.contract import Inputs, Outputs, Settings
from modelmill.targets.base import Runtime
from modelmill.targets.onnxruntime_cpu import open_session
from modelmill.targets.pytorch import load_processor
from modelmill.targets.registry import on_gpu, open_session_of
from modelmill.tasks import registry
from modelmill.tasks.base import Batch
from modelmill.tasks.samples import random_batch

FUSIONS: dict[Runtime, Callable[[ir.Model], dict[str, int]]] = {
    Runtime.ONNXRUNTIME: fuse_for_onnxruntime_cpu,
    Runtime.OPENVINO: leave_to_runtime,
    Runtime.ONNXRUNTIME_CUDA: leave_to_runtime,
    Runtime.ONNXRUNTIME_TENSORRT: leave_to_runtime,
}
"""A pass for every runtime of this version."""
_FUSES_ITSELF = frozenset(FUSIONS) - {Runtime.ONNXRUNTIME}


def run(inputs: Inputs, outputs: Outputs, settings: Settings, progress: Progress) -> Report:
    """Fuse each graph, and check the model, on the target's runtime, against the exported one on ONNX Runtime.

    An architecture whose patterns are unknown keeps its graph, and a fact says so.

    Raises:
        ModelError: A graph is damaged, or the fused model deviates beyond the bound.
    """
    task = registry.get(settings.task)
    fuse = FUSIONS[settings.runtime]
    document = read_model(inputs.model)
    copy_companions(document, inputs.model, outputs.model)
    components, fused, left = {}, {}, {}
    with progress.bar("fuse", len(document.components), "graphs") as bar:
        for role, component in document.components.items():
            graph = files.load(inputs.model / component.file)
            fused[role] = fuse(graph)
            left[role] = 0 if settings.runtime in _FUSES_ITSELF else attention_left(graph)
            components[role] = files.component_of(graph, role, files.save(graph, outputs.model, role))
            bar.advance()
    optimized = document.model_copy(update={"components": components})
    write_model(outputs.model, optimized)
    processor = load_processor(outputs.model)

    def batch_of(batch_size: int, length: int, padded: bool) -> Batch:
        return random_batch(task, processor, batch_size, length, padded=padded)

    threads = hardware.threads()
    # What is left to a GPU's runtime is the same graph still, and looked at without the GPU.
    open_after = open_session if on_gpu(settings.runtime) else open_session_of(settings.runtime)
    before, after = open_session(inputs.model, threads), open_after(outputs.model, threads)
    grid = tuple(parity.shapes(document.max_length))
    with progress.bar("parity with the exported graph", len(grid), "shapes") as bar:
        found = parity.compare(before.run, after.run, batch_of, grid, bar)
    parity.require(found, settings.max_relative_deviation, "the fused graph is not the exported one")
    counts: dict[str, JSON] = {role: dict(number) for role, number in fused.items()}
    facts: dict[str, JSON] = {**document.facts, "fused": counts, "optimize_parity": found.bound()}
    write_model(outputs.model, optimized.model_copy(update={"facts": facts}))
    for role in fused:
        itself = settings.runtime in _FUSES_ITSELF
        words = f"{role}: stays as it was exported; {settings.runtime.value} fuses it while loading"
        progress.fact(words if itself else _words(role, fused[role], left[role]))
    progress.fact(f"the fused model deviates by {found.words('the exported one')}")
    unfused: dict[str, JSON] = {role: number for role, number in left.items() if number}
    return Report({"fused": counts, "attention_left": unfused, "optimize_parity": found.fact()})


def _words(role: str, fused: dict[str, int], left: int) -> str:
    if not fused:
        kept = f", with {left} attentions as they were" if left else ""
        return f"{role}: nothing to fuse is known for this architecture; it keeps the exported graph{kept}"
    counts = ", ".join(f"{number} {name}" for name, number in fused.items())
    return f"{role}: fused {counts}" + (f"; {left} attentions stay as they were" if left else "")
