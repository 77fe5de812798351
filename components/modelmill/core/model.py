"""The model artifact: ``model.json`` beside its graphs and processors.

One graph for an encoder, several for a generator or a speech model: what runs when is data (`Execution`), so that
every step that handles a model handles any number of graphs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from modelmill.core.contract import JSON, Closed
from modelmill.core.errors import ModelError
from modelmill.core.manifest import write_json

MODEL_DOCUMENT = "model.json"


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


class ModelDocument(Closed):
    """``model.json``."""

    format: int = 1
    task: str
    architecture: str = Field(description="config.json's model_type")
    labels: list[str] = Field(default_factory=list, description="in the order of the outputs; empty where none apply")
    precision: str = Field(description="float32 or int8")
    opset: int = Field(description="ONNX opset of the default domain")
    components: dict[str, Component] = Field(description="role → graph")
    execution: Execution
    processors: dict[str, list[str]] = Field(description="kind (tokenizer) → its files")
    max_length: int = Field(description="tokens at which a text is cut")
    facts: dict[str, JSON] = Field(
        default_factory=dict, description="what the steps found: parity, fused operators, quantized operators"
    )

    def files(self) -> list[str]:
        """Every file the artifact needs besides model.json, sorted."""
        graphs = [name for item in self.components.values() for name in (item.file, *item.external_data)]
        return sorted({*graphs, *(name for files in self.processors.values() for name in files), "config.json"})


def write_model(directory: Path, document: ModelDocument) -> None:
    """Write ``model.json`` beside files that are already there."""
    write_json(directory / MODEL_DOCUMENT, document.model_dump(mode="json"))


def read_model(directory: Path) -> ModelDocument:
    """The artifact's ``model.json``.

    Raises:
        ModelError: It is missing, or names a file that is not there.
    """
    path = directory / MODEL_DOCUMENT
    if not path.is_file():
        what = "this is no model artifact: it has no model.json"
        raise ModelError(what, where=str(directory), fix="give the directory that an export step wrote")
    document = ModelDocument.model_validate_json(path.read_bytes())
    for name in document.files():
        if not (directory / name).is_file():
            what = f"model.json names {name}, which is not there"
            raise ModelError(what, where=str(directory), fix="run the line again to make the artifact anew")
    return document
