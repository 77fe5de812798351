"""The contracts of evaluate: the baseline's predictions, the candidate's predictions, and the measurements.

Each is keyed by itself: the baseline is predicted once for all lanes, predictions are reproducible, and measurements
stand for one hardware class and run alone on their node.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from modelmill.core.contract import Closed, KeyOn, Kind, PortType, StepContract, port
from modelmill.core.evidence import Cell
from modelmill.targets.base import Runtime


@dataclass(frozen=True)
class BaselineInputs:
    """What the candidate is held against."""

    checkpoint: Path = port(PortType.CHECKPOINT, "the retrained model, run by PyTorch eager in float32")
    rows: Path = port(PortType.ROWS, "evaluation rows")


@dataclass(frozen=True)
class BaselineOutputs:
    """The baseline's predictions."""

    predictions: Path = port(PortType.PREDICTIONS, "outputs and predictions of the baseline, in the rows' order")


class BaselineSettings(Closed):
    """How to predict."""

    task: str = Field(description="the ML task: text-classification")


@dataclass(frozen=True)
class CandidateInputs:
    """A lane's model."""

    model: Path = port(PortType.MODEL, "the candidate")
    rows: Path = port(PortType.ROWS, "evaluation rows")


@dataclass(frozen=True)
class CandidateOutputs:
    """The candidate's predictions."""

    predictions: Path = port(PortType.PREDICTIONS, "outputs and predictions of the candidate, in the rows' order")


class CandidateSettings(Closed):
    """What to predict on."""

    task: str = Field(description="the ML task: text-classification")
    runtime: Runtime = Field(description="what runs the model: onnxruntime")


@dataclass(frozen=True)
class MeasureInputs:
    """What is timed against what."""

    checkpoint: Path = port(PortType.CHECKPOINT, "the baseline, run by PyTorch eager in float32")
    exported: Path = port(PortType.MODEL, "float32 as exported")
    optimized: Path = port(PortType.MODEL, "float32 with fused operators")
    candidate: Path = port(PortType.MODEL, "the candidate")
    rows: Path = port(PortType.ROWS, "evaluation rows, for throughput at real lengths")


@dataclass(frozen=True)
class MeasureOutputs:
    """The measurements."""

    measurements: Path = port(PortType.MEASUREMENTS, "latency, throughput, load time, memory, size")


class MeasureSettings(Closed):
    """What to time, and how long."""

    task: str = Field(description="the ML task: text-classification")
    runtime: Runtime = Field(description="what runs the model: onnxruntime")
    cells: list[Cell] = Field(
        min_length=1,
        description="what is timed: batch_size and sequence_length of each; the first one is what min_speedup judges",
    )
    seconds_per_cell: float = Field(6.0, gt=0, le=600, description="time budget of a cell, all models together")
    throughput_rows: int = Field(512, ge=0, description="evaluation texts timed at their real lengths; 0: none")
    hardware_class: str | None = Field(None, description="what the recipe declares; another one is an error")
    seed: int = Field(0, ge=0, description="of tokens and of the order in which models take turns")


BASELINE = StepContract(
    name="evaluate",
    part="baseline",
    version=2,
    summary="Predict the evaluation rows with the checkpoint in PyTorch, once for all lanes.",
    inputs=BaselineInputs,
    outputs=BaselineOutputs,
    settings=BaselineSettings,
    function="modelmill.steps.evaluate.run:baseline",
    packages=("torch", "transformers", "evaluate"),
    key_on=frozenset({KeyOn.THREADS, KeyOn.INSTRUCTION_SET}),
)
CANDIDATE = StepContract(
    name="evaluate",
    part="candidate",
    version=2,
    summary="Predict the evaluation rows with the candidate on the target's runtime.",
    inputs=CandidateInputs,
    outputs=CandidateOutputs,
    settings=CandidateSettings,
    function="modelmill.steps.evaluate.run:candidate",
    packages=("onnxruntime", "transformers", "evaluate"),
    key_on=frozenset({KeyOn.INSTRUCTION_SET}),
)
MEASURE = StepContract(
    name="evaluate",
    part="measure",
    version=3,
    summary="Time the baseline, the best unquantized model and the candidate in turn in one process.",
    inputs=MeasureInputs,
    outputs=MeasureOutputs,
    settings=MeasureSettings,
    function="modelmill.steps.evaluate.run:measure",
    kind=Kind.MEASURED,
    packages=("torch", "transformers", "onnxruntime"),
    key_on=frozenset({KeyOn.HARDWARE_CLASS}),
)
PARTS = (BASELINE, CANDIDATE, MEASURE)
