"""Export a checkpoint: trace, strip, write, check against PyTorch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from modelmill.core import hardware
from modelmill.core.contract import JSON, Report
from modelmill.core.model import CHECKPOINT_BYTES, CONFIG, Component, Execution, ModelDocument, write_model
from modelmill.core.progress import Progress
from modelmill.graphs import files, parity
from modelmill.measuring.models import checkpoint_bytes
from modelmill.steps.export.chain import stage_inputs
from modelmill.steps.export.contract import Inputs, Outputs, Settings
from modelmill.steps.export.tracing import TRACE_BATCH_SIZE, TRACE_LENGTH, trace
from modelmill.targets.onnxruntime_cpu import open_session
from modelmill.targets.pytorch import PytorchSession, load_checkpoint, max_length_of
from modelmill.tasks import registry
from modelmill.tasks.base import Batch, ExportUnit
from modelmill.tasks.samples import random_batch

PROCESSOR_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "spm.model",
    "preprocessor_config.json", "processor_config.json", "chat_template.jinja",
)  # fmt: skip
"""What transformers' processors write and read; config.json and weights are no part of them."""


def run(inputs: Inputs, outputs: Outputs, settings: Settings, progress: Progress) -> Report:
    """Export the checkpoint's graphs and check them against PyTorch.

    Raises:
        ModelError: A weight is not finite, the model cannot be traced, or the graphs deviate beyond the bound.
    """
    task = registry.get(settings.task)
    model, processor = load_checkpoint(inputs.checkpoint, task)
    units = task.export_units(model, processor)
    execution = task.execution({unit.role: unit.inputs for unit in units})
    maximum = max_length_of(model, processor)
    sample = task.sample(processor, TRACE_BATCH_SIZE, min(TRACE_LENGTH, maximum))
    with _plain_attention(model):
        components, opset = _write_graphs(units, execution, sample, settings.opset, outputs.model, progress)
    document = ModelDocument(
        task=task.name,
        architecture=model.config.model_type,
        labels=[model.config.id2label[index] for index in sorted(model.config.id2label)],
        precision="float32",
        opset=opset,
        components=components,
        execution=execution,
        processors={"tokenizer": _copy_files(inputs.checkpoint, outputs.model)},
        max_length=maximum,
    )
    write_model(outputs.model, document)

    def batch_of(batch_size: int, length: int, padded: bool) -> Batch:
        return random_batch(task, processor, batch_size, length, padded=padded)

    threads = hardware.threads()
    pytorch, exported = PytorchSession(model, processor, task, threads), open_session(outputs.model, threads)
    grid = tuple(parity.shapes(maximum))
    with progress.bar("parity with PyTorch", len(grid), "shapes") as bar:
        found = parity.compare(pytorch.run, exported.run, batch_of, grid, bar)
    parity.require(found, settings.max_relative_deviation, "the exported graph is not the model")
    facts: dict[str, JSON] = {
        "export_parity": found.bound(),
        CHECKPOINT_BYTES: checkpoint_bytes(inputs.checkpoint),
    }
    write_model(outputs.model, document.model_copy(update={"facts": facts}))
    progress.fact(f"{len(components)} graph(s), opset {opset}: {found.words('PyTorch')}")
    return Report({"export_parity": found.fact(), "opset": opset, "max_length": maximum})


def _write_graphs(
    units: Sequence[ExportUnit],
    execution: Execution,
    sample: Mapping[str, np.ndarray],
    opset: int,
    directory: Path,
    progress: Progress,
) -> tuple[dict[str, Component], int]:
    components: dict[str, Component] = {}
    found = opset
    with progress.bar("export", len(execution.stages), "graphs") as bar:
        for unit, tensors in stage_inputs(units, execution, sample):
            if unit.role not in components:
                graph = trace(unit, tensors, opset)
                found = files.opset_of(graph)
                external = files.save(graph, directory, unit.role)
                components[unit.role] = files.component_of(graph, unit.role, external)
            bar.advance()
    return components, found


@contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """Trace attention as products and a softmax.

    The exporter guards scaled_dot_product_attention against fully masked rows with operators in every layer that cost
    time and that no fusion for the CPU knows (transformers 5.23, exporter_onnx.py, _patch_sdpa).
    """
    before = getattr(model.config, "_attn_implementation", None)
    if before is None or not hasattr(model, "set_attn_implementation"):
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _copy_files(checkpoint: Path, directory: Path) -> list[str]:
    """Copy config.json and the processor's files; the names of the latter."""
    names = sorted(name for name in PROCESSOR_FILES if (checkpoint / name).is_file())
    for name in (*names, CONFIG):
        shutil.copyfile(checkpoint / name, directory / name)
    return names
