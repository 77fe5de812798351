"""The contracts of calibrate-quantize: choosing how to quantize is one part, applying the choice another.

A choice may rest on timings and is measured; a model made from a choice is reproducible.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from modelmill.core.contract import Closed, KeyOn, Kind, PortType, StepContract, port
from modelmill.targets.base import Precision, Runtime


class Scheme(StrEnum):
    """How weights and activations become int8."""

    NONE = "none"
    """float32 stays."""
    DYNAMIC = "dynamic"
    """Weights per channel ahead of time, activations per batch at run time."""
    STATIC = "static"
    """Weights per channel, activations by ranges calibrated with MinMax (QDQ)."""


class Choice(Closed):
    """``choice.json``: all that applying needs besides the model and the calibration rows."""

    format: int = 1
    precision: Precision
    scheme: Scheme
    embeddings: bool = Field(True, description="whether embedding tables become int8 too")
    calibration_rows: int = Field(256, ge=1, description="rows read for static ranges")
    reduce_range: bool = Field(
        False, description="whether weights have 7 bits, for processors that add 8-bit products in 16 bits"
    )
    reason: str = Field(description="why this one, for people")


@dataclass(frozen=True)
class ChooseInputs:
    """What a choice may rest on: no evaluation rows."""

    model: Path = port(PortType.MODEL, "optimized graphs")
    calibrate: Path = port(PortType.ROWS, "rows for calibration")
    tune: Path = port(PortType.ROWS, "rows that compare candidates")


@dataclass(frozen=True)
class ChooseOutputs:
    """The choice."""

    choice: Path = port(PortType.CHOICE, "choice.json")


class ChooseSettings(Closed):
    """What is allowed."""

    task: str = Field(description="the ML task: text-classification")
    runtime: Runtime = Field(description="what runs the model: onnxruntime")
    precisions: list[Precision] = Field(min_length=1, description="allowed (float32, int8); the choice is among them")
    scheme: Scheme | None = Field(None, description="demanded (none, dynamic, static); None leaves it to the choice")
    embeddings: bool = Field(True, description="whether embedding tables become int8 too")
    calibration_rows: int = Field(256, ge=1, description="rows read for static ranges")


@dataclass(frozen=True)
class ApplyInputs:
    """What a choice is applied to."""

    model: Path = port(PortType.MODEL, "optimized graphs")
    choice: Path = port(PortType.CHOICE, "choice.json")
    calibrate: Path = port(PortType.ROWS, "rows for static ranges")


@dataclass(frozen=True)
class ApplyOutputs:
    """The candidate."""

    model: Path = port(PortType.MODEL, "the candidate: graphs in the chosen precision")


class ApplySettings(Closed):
    """What the candidate runs on."""

    task: str = Field(description="the ML task: text-classification")
    runtime: Runtime = Field(description="what runs the model: onnxruntime")


CHOOSE = StepContract(
    name="calibrate-quantize",
    part="choose",
    version=1,
    summary="Choose how to quantize within the precisions that the recipe allows.",
    inputs=ChooseInputs,
    outputs=ChooseOutputs,
    settings=ChooseSettings,
    function="modelmill.steps.calibrate_quantize.run:choose",
    kind=Kind.MEASURED,
    packages=("onnxruntime",),
    key_on=frozenset({KeyOn.HARDWARE_CLASS}),
)
APPLY = StepContract(
    name="calibrate-quantize",
    version=1,
    summary="Calibrate on the recipe's rows and quantize as chosen.",
    inputs=ApplyInputs,
    outputs=ApplyOutputs,
    settings=ApplySettings,
    function="modelmill.steps.calibrate_quantize.run:apply",
    packages=("onnx-ir", "onnxruntime", "transformers"),
    # Static ranges come from float32 kernels, whose last bits follow the instruction set.
    key_on=frozenset({KeyOn.INSTRUCTION_SET}),
)
PARTS = (CHOOSE, APPLY)
