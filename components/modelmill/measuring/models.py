"""Models opened for measuring: a checkpoint in PyTorch, or a model artifact on its runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelmill.core.errors import ModelError
from modelmill.core.evidence import Cell
from modelmill.core.manifest import sha256_of
from modelmill.core.model import MODEL_DOCUMENT, MicroBatching, ModelDocument, read_model
from modelmill.targets.base import Runtime, Session
from modelmill.targets.pytorch import (
    FLOAT32_ON_CPU,
    HALF_ON_GPU,
    PytorchSession,
    load_checkpoint,
    load_processor,
    max_length_of,
)
from modelmill.targets.registry import open_session_of
from modelmill.tasks import registry
from modelmill.tasks.base import Batch, Task


@dataclass(frozen=True)
class OpenModel:
    """A loaded model and what encoding for it takes.

    Attributes:
        session: Answers padded batches.
        task: Its task.
        processor: Its tokenizer.
        labels: In the order of its outputs; empty where none apply.
        max_length: Tokens at which texts are cut.
        size_bytes: Its weights: graphs with external data, or safetensors.
        precision: What it computes in.
    """

    session: Session
    task: Task
    processor: Any
    labels: tuple[str, ...]
    max_length: int
    size_bytes: int
    precision: str

    def sample(self, cell: Cell, seed: int) -> Batch:
        """A batch of random tokens in the cell's shape."""
        return self.task.sample(self.processor, cell.batch_size, cell.sequence_length, seed)


def is_model_artifact(directory: Path) -> bool:
    """Whether ``directory`` holds ``model.json``; a checkpoint has none."""
    return (directory / MODEL_DOCUMENT).is_file()


def open_checkpoint(directory: Path, task: Task, threads: int, *, gpu: bool = False) -> OpenModel:
    """A checkpoint in PyTorch, eager: float32 on a CPU, fp16 on a GPU, as its user runs it on each.

    Raises:
        ModelError: The checkpoint is broken.
    """
    model, processor = load_checkpoint(directory, task)
    return OpenModel(
        session=PytorchSession(model, processor, task, threads, HALF_ON_GPU if gpu else FLOAT32_ON_CPU),
        task=task,
        processor=processor,
        labels=tuple(model.config.id2label[index] for index in sorted(model.config.id2label)),
        max_length=max_length_of(model, processor),
        size_bytes=checkpoint_bytes(directory),
        precision="fp16" if gpu else "float32",
    )


def open_artifact(
    directory: Path, runtime: Runtime, threads: int, micro_batching: MicroBatching | None = None
) -> OpenModel:
    """A model artifact on a runtime, batches divided as asked, else as its model.json says.

    Raises:
        ModelError: The artifact is broken.
    """
    document = read_model(directory)
    return OpenModel(
        session=open_session_of(runtime)(directory, threads, micro_batching),
        task=registry.get(document.task),
        processor=load_processor(directory),
        labels=tuple(document.labels),
        max_length=document.max_length,
        size_bytes=graph_bytes(directory, document),
        precision=document.precision,
    )


def checkpoint_bytes(directory: Path) -> int:
    """Bytes of a checkpoint's safetensors.

    Raises:
        ModelError: It has none.
    """
    total = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    if not total:
        what = "the checkpoint has no safetensors"
        raise ModelError(what, where=str(directory), fix="save it with save_pretrained(directory)")
    return total


def graph_files(document: ModelDocument) -> list[str]:
    """The files that hold graphs and weights, sorted; a file that several graphs share stands once."""
    return sorted({name for item in document.components.values() for name in (item.file, *item.external_data)})


def graph_bytes(directory: Path, document: ModelDocument) -> int:
    """Bytes of a model artifact's graphs with their external data."""
    return sum((directory / name).stat().st_size for name in graph_files(document))


def same_graphs(one: Path, other: Path) -> bool:
    """Whether two model artifacts hold the same graphs, byte for byte, and run them alike, in one precision."""
    documents = read_model(one), read_model(other)
    files = [graph_files(document) for document in documents]
    alike = [(document.execution, document.precision) for document in documents]
    if alike[0] != alike[1] or files[0] != files[1]:
        return False
    return all(sha256_of(one / name) == sha256_of(other / name) for name in files[0])
