"""The model artifact: ``model.json`` beside its graphs and processors.

One graph for an encoder, several for a generator or a speech model: what runs when is data (`Execution`), so that
every step that handles a model handles any number of graphs.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from modelmill.core.contract import JSON, Closed
from modelmill.core.errors import ModelError, StoreError
from modelmill.core.manifest import safe_name, write_json

MODEL_DOCUMENT = "model.json"
CONFIG = "config.json"
CHECKPOINT_BYTES = "checkpoint_bytes"
"""The fact that holds the size of the safetensors that a model was exported from, which sizes are held against."""


class Tensor(Closed):
    """One input or output of a graph."""

    name: str
    dtype: str = Field(description="numpy's name: int64, float32")
    shape: list[int | str] = Field(description="a number, or the name of an axis that varies: batch, sequence")


class Component(Closed):
    """One graph."""

    file: str = Field(description="the graph, relative to the artifact")
    external_data: list[str] = Field(default_factory=list, description="files that hold its weights beside it")
    inputs: list[Tensor]
    outputs: list[Tensor]


class Stage(Closed):
    """One graph's turn in a chain."""

    component: str = Field(description="the component's role")
    feeds: dict[str, str] = Field(description="graph input → value: an encoded column, or what a former stage gave")
    gives: dict[str, str] = Field(description="graph output → value")


class Chain(Closed):
    """Graphs run once, one after another: encoders, and encoders with a head of their own."""

    kind: Literal["chain"] = "chain"
    stages: list[Stage] = Field(min_length=1)


Execution = Chain
"""A tagged union on ``kind``; generation adds its own member."""


class MicroBatching(Closed):
    """How a session divides a padded batch: rows of like length together, each part cut to its longest row.

    The parts are a part of the model: where activations are scaled by the batch (dynamic int8), they shape its answers.
    """

    max_tokens: int = Field(
        ge=0, description="a part's rows times its longest row at most, a single row excepted; 0: rows one by one"
    )
    workers: int = Field(1, ge=1, description="parts run at a time, the threads divided among them")


class ShapeProfile(Closed):
    """Shapes of input that a runtime which builds an engine (TensorRT) builds it for."""

    usual_batch: int = Field(ge=1, description="rows that it is tuned for")
    usual_length: int = Field(ge=1, description="tokens that it is tuned for")
    largest_batch: int = Field(ge=1, description="rows that it takes at most")
    largest_length: int = Field(ge=1, description="tokens that it takes at most")


class ModelDocument(Closed):
    """``model.json``."""

    format: int = 1
    task: str
    architecture: str = Field(description="config.json's model_type")
    labels: list[str] = Field(default_factory=list, description="in the order of the outputs; empty where none apply")
    precision: str = Field(description="float32, bf16, fp16 or int8")
    rest: str = Field("float32", description="what is computed that is not int8: float32, bf16 or fp16")
    opset: int = Field(description="ONNX opset of the default domain")
    components: dict[str, Component] = Field(description="role → graph")
    execution: Execution
    micro_batching: MicroBatching | None = Field(None, description="how a session divides a batch; null: it does not")
    shapes: ShapeProfile | None = Field(None, description="shapes that an engine is built for; null: none is built")
    session: dict[str, str] = Field(
        default_factory=dict, description="the runtime's own options that a session is opened with, by their names"
    )
    processors: dict[str, list[str]] = Field(description="kind (tokenizer) → its files")
    max_length: int = Field(description="tokens at which a text is cut")
    facts: dict[str, JSON] = Field(
        default_factory=dict, description="what the steps found: parity, fused operators, quantized operators"
    )

    def files(self) -> list[str]:
        """Every file the artifact needs besides model.json, sorted."""
        graphs = [name for item in self.components.values() for name in (item.file, *item.external_data)]
        return sorted({*graphs, *self.companions()})

    def companions(self) -> list[str]:
        """The files that are no graph, sorted: config.json and the processors'."""
        return sorted({*(name for files in self.processors.values() for name in files), CONFIG})


def write_model(directory: Path, document: ModelDocument) -> None:
    """Write ``model.json`` beside files that are already there."""
    write_json(directory / MODEL_DOCUMENT, document.model_dump(mode="json"))


def read_model(directory: Path) -> ModelDocument:
    """The artifact's ``model.json``.

    Raises:
        ModelError: It is missing or malformed, or names a file that is not there or lies outside.
    """
    path = directory / MODEL_DOCUMENT
    if not path.is_file():
        what = "this is no model artifact: it has no model.json"
        raise ModelError(what, where=str(directory), fix="give the directory that an export step wrote")
    again = "run the line again to make the artifact anew"
    try:
        document = ModelDocument.model_validate_json(path.read_bytes())
        names = [safe_name(name) for name in document.files()]
    except ValidationError as error:
        first = error.errors()[0]
        what = f"model.json is not what an export step writes: {first['msg']}"
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ModelError(what, where=f"{path}: {field}", fix=again) from None
    except StoreError as error:
        raise ModelError(error.what, where=str(path), fix="do not use it: it names files outside itself") from None
    for name in names:
        if not (directory / name).is_file():
            what = f"model.json names {name}, which is not there"
            raise ModelError(what, where=str(directory), fix=again)
    return document


def copy_companions(document: ModelDocument, source: Path, destination: Path) -> None:
    """Copy what a model keeps while its graphs change: config.json and the processors' files, bytes as they are."""
    for name in document.companions():
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, destination / name)
