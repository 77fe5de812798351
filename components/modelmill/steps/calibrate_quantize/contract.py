"""The contracts of calibrate-quantize: choosing how to quantize is one part, applying the choice another.

A choice may rest on timings and is measured; a model made from a choice is reproducible.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field

from modelmill.core.contract import Closed, KeyOn, Kind, PortType, StepContract, port, scratch
from modelmill.core.evidence import Cell
from modelmill.core.model import MicroBatching, ShapeProfile
from modelmill.step_settings import StepSettings
from modelmill.targets.base import Precision, Runtime
from modelmill.targets.registry import packages_of


class Scheme(StrEnum):
    """How weights and activations become int8."""

    NONE = "none"
    """float32 stays."""
    DYNAMIC = "dynamic"
    """Weights per channel ahead of time, activations per batch at run time."""
    STATIC = "static"
    """Weights per channel, activations by ranges calibrated ahead of time (QDQ)."""


class Calibration(StrEnum):
    """How static ranges are taken from the values seen."""

    MINMAX = "minmax"
    """Smallest and largest."""
    PERCENTILE = "percentile"
    """The range that holds 99.99 % of the values."""
    ENTROPY = "entropy"
    """The range whose eight bits lose least information (Kullback and Leibler)."""


class Gelu(StrEnum):
    """How GELU is computed."""

    EXACT = "exact"
    """By the error function, as it was trained."""
    TANH = "tanh"
    """By Hendrycks and Gimpel's approximation (arXiv:1606.08415, section 2)."""


class Variant(Closed):
    """How a graph is made from the optimized one: what applying a choice does."""

    precision: Precision
    scheme: Scheme
    calibration: Calibration = Field(Calibration.MINMAX, description="how static ranges are taken")
    symmetric: bool = Field(False, description="whether static ranges lie around zero")
    smooth: float | None = Field(
        None, ge=0, le=1, description="SmoothQuant's migration strength, arXiv:2211.10438; null: not smoothed"
    )
    embeddings: bool = Field(True, description="whether embedding tables become int8 too")
    gelu: Gelu = Field(Gelu.EXACT, description="how GELU is computed")
    keep_float: list[str] = Field(
        default_factory=list, description="products that stay unquantized: role/number in the graph's order"
    )
    rest: Literal[Precision.FLOAT32, Precision.BF16, Precision.FP16] = Field(
        Precision.FLOAT32, description="what is computed that is not int8: float32, bf16 or fp16 where the runtime can"
    )
    residuals: bool = Field(
        False,
        description="whether TensorRT's int8 sums read their residual side as int8, too, to be one with a product",
    )
    session: dict[str, str] = Field(
        default_factory=dict, description="the runtime's own options that a session is opened with, by their names"
    )
    calibration_rows: int = Field(256, ge=1, description="rows read for static ranges")
    max_calibration_rss_bytes: int | None = Field(
        None, ge=1, description="memory of the process that calibrates, at most; null: what its batches take"
    )
    reduce_range: bool = Field(
        False, description="whether weights have 7 bits, for processors that add 8-bit products in 16 bits"
    )


class Choice(Variant):
    """``choice.json``: all that applying needs besides the model and the calibration rows."""

    format: int = 3
    micro_batching: MicroBatching | None = Field(None, description="how a session divides a batch; null: it does not")
    shapes: ShapeProfile | None = Field(None, description="shapes that an engine is built for; null: none is built")
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

    choice: Path = port(PortType.CHOICE, "choice.json, and trials.json where candidates were tried")
    journal: Path = scratch("trials so far, for a killed search's successor")


class Bound(Closed):
    """What a candidate must keep to, on the tune rows."""

    max_drop_points: float = Field(1.0, ge=0, le=100, description="points of accuracy that may be lost")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="one-sided confidence of the paired interval")
    max_size_ratio: float | None = Field(None, gt=0, description="the graphs' bytes over the checkpoint's safetensors")
    max_batch_flips: int | None = Field(None, ge=0, description="predictions that may change with their batch")
    metric: str | None = Field(
        None, description="the gate's; of another than the task's primary one the search only says so"
    )
    unit: str | None = Field(None, description="column of the gate's units, of which the search only says so")
    slices: str | None = Field(None, description="what the gate slices by, of which the search only says so")


class Search(Closed):
    """How long to look for a faster model."""

    trials: int = Field(32, ge=0, description="candidates to try at most; 0: the first allowed one, untried")
    seconds: float = Field(300.0, gt=0, le=86400, description="after which no further trial starts")
    min_gain: float = Field(1.05, ge=1, description="how many times as fast int8 must be where float32 is allowed too")
    seed: int = Field(0, ge=0, description="of tokens and of the order in which models take turns")
    max_calibration_rss_bytes: int | None = Field(
        None, ge=1, description="memory of a calibrating process; batches shrink first; none: unbounded"
    )


class ChooseSettings(StepSettings):
    """What is allowed."""

    task: str = Field(description="the ML task: text-classification")
    runtime: Runtime = Field(description="what runs the model: openvino, onnxruntime, onnxruntime-cuda or -tensorrt")
    precisions: list[Precision] = Field(
        min_length=1, description="allowed (float32, bf16, fp16, int8); the choice is among them"
    )
    cells: list[Cell] = Field(min_length=1, description="shapes of input whose speed counts, each alike")
    scheme: Scheme | None = Field(None, description="demanded (none, dynamic, static); None leaves it to the choice")
    embeddings: bool = Field(True, description="whether embedding tables become int8 too")
    calibration_rows: int = Field(256, ge=1, description="rows read for static ranges")
    search: Search = Field(default_factory=lambda: Search.model_validate({}), description="how long to look")
    bound: Bound = Field(default_factory=lambda: Bound.model_validate({}), description="what a candidate must keep to")
    hardware_class: str | None = Field(None, description="what the recipe declares; another one is an error")


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


class ApplySettings(StepSettings):
    """What the candidate runs on."""

    task: str = Field(description="the ML task: text-classification")
    runtime: Runtime = Field(description="what runs the model: openvino, onnxruntime, onnxruntime-cuda or -tensorrt")


CHOOSE = StepContract(
    name="calibrate-quantize",
    part="choose",
    version=6,
    summary="Search for the fastest candidate within the recipe's bounds, on tune rows alone.",
    inputs=ChooseInputs,
    outputs=ChooseOutputs,
    settings=ChooseSettings,
    function="modelmill.steps.calibrate_quantize.run:choose",
    kind=Kind.MEASURED,
    packages=("onnx-ir", "onnxruntime", "transformers"),
    packages_of=packages_of,
    key_on=frozenset({KeyOn.HARDWARE_CLASS}),
)
APPLY = StepContract(
    name="calibrate-quantize",
    version=4,
    summary="Calibrate on the recipe's rows and quantize as chosen.",
    inputs=ApplyInputs,
    outputs=ApplyOutputs,
    settings=ApplySettings,
    function="modelmill.steps.calibrate_quantize.run:apply",
    packages=("onnx-ir", "onnxruntime", "transformers"),
    packages_of=packages_of,
    # Static ranges come from float32 kernels, whose last bits follow the instruction set.
    key_on=frozenset({KeyOn.INSTRUCTION_SET}),
)
PARTS = (CHOOSE, APPLY)
