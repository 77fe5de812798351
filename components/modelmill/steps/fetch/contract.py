"""The contract of fetch: a model and rows by role, from outside, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from modelmill.core.contract import Closed, PortType, StepContract, Unkeyed, port
from modelmill.step_settings import StepSettings


@dataclass(frozen=True)
class Inputs:
    """Fetch reads sources, not artifacts."""


@dataclass(frozen=True)
class Outputs:
    """A checkpoint and rows by role. Only ``evaluate`` holds rows that judge."""

    model: Path = port(PortType.CHECKPOINT, "the model as its source has it: config.json, model.safetensors, tokenizer")
    train: Path = port(PortType.ROWS, "rows to train on")
    tune: Path = port(PortType.ROWS, "rows for early stopping and search; held out from train")
    calibrate: Path = port(PortType.ROWS, "rows whose activations set quantization ranges")
    evaluate: Path = port(PortType.ROWS, "rows that judge: given to evaluate and gate alone")


class ModelSource(Closed):
    """Where a model comes from."""

    source: Annotated[str, Unkeyed()] = Field(description="package:, hf://, s3:// or file: reference")
    sha256: dict[str, str] = Field(default_factory=dict, description="file → sha256 that it must have")
    pin: str | None = Field(None, description="set by resolve: digest of the files, or the Hub's commit")


class DataSource(Closed):
    """Where rows come from, and how they are divided."""

    source: Annotated[str, Unkeyed()] = Field(description="package:, hf://, s3:// or file: reference")
    reader: str = Field("files", description="files, or botocore-operations")
    columns: dict[str, str] = Field(default_factory=dict, description="the task's column → the data's column")
    train: str = Field("train", description="the split to train on")
    tune: str | float = Field(0.15, description="a split, or a share held out from train")
    calibrate: str = Field("train", description="the split whose activations set quantization ranges")
    evaluate: str = Field("test", description="the split that judges")
    keep: list[str] = Field(
        default_factory=list,
        description="further columns of the data that evaluation rows keep: what the gate slices by, or units",
    )
    limit: dict[str, int] = Field(default_factory=dict, description="role → rows at most, chosen by the seed")
    seed: int = Field(0, description="of who is held out and who is chosen")
    pin: str | None = Field(None, description="set by resolve: digest of the files, or the Hub's commit")


class Settings(StepSettings):
    """What to fetch."""

    task: str = Field(description="the ML task: text-classification")
    model: ModelSource
    data: DataSource
    mounts: Annotated[list[str] | None, Unkeyed()] = Field(
        None, description="directories that file: sources may lie in; None allows any (one machine, one user)"
    )


STEP = StepContract(
    name="fetch",
    version=2,
    summary="Fetch a model and rows by pinned revision and digest, check both, and divide the rows by role.",
    inputs=Inputs,
    outputs=Outputs,
    settings=Settings,
    function="modelmill.steps.fetch.run:run",
    resolve="modelmill.steps.fetch.resolve:resolve",
)
PARTS = (STEP,)
