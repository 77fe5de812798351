"""The contracts of evaluate: the baseline's predictions, the candidate's, the measurements, and the smoke test.

Each is keyed by itself: the baseline is predicted once for all lanes, predictions are reproducible, and measurements
stand for one hardware class and run alone on their node, as the smoke test does, which asks a real server.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from modelmill.core.contract import Closed, KeyOn, Kind, PortType, StepContract, port, sensed
from modelmill.core.evidence import Cell
from modelmill.core.served import Opponent, Sensed
from modelmill.step_settings import StepSettings
from modelmill.targets.base import Runtime
from modelmill.targets.registry import key_on_of, packages_of


@dataclass(frozen=True)
class BaselineInputs:
    """What the candidate is held against."""

    checkpoint: Path = port(PortType.CHECKPOINT, "the retrained model, run by PyTorch eager in float32")
    rows: Path = port(PortType.ROWS, "evaluation rows")


@dataclass(frozen=True)
class BaselineOutputs:
    """The baseline's predictions."""

    predictions: Path = port(PortType.PREDICTIONS, "outputs and predictions of the baseline, in the rows' order")


class BaselineSettings(StepSettings):
    """How to predict."""

    task: str = Field(description="the ML task: text-classification")


@dataclass(frozen=True)
class CandidateInputs:
    """A lane's model."""

    model: Path = port(PortType.MODEL, "the candidate")
    rows: Path = port(PortType.ROWS, "evaluation rows")
    champion: Path | None = sensed(PortType.BUNDLE, "what the channel names")
    reference: Path | None = sensed(PortType.BUNDLE, "the channel's reference")


@dataclass(frozen=True)
class CandidateOutputs:
    """The candidate's predictions."""

    predictions: Path = port(PortType.PREDICTIONS, "outputs and predictions of the candidate, in the rows' order")


class ServedSettings(Closed):
    """Where what is served stands, and what of it answers the rows, too."""

    model: str = Field(description="the model's name in the registry")
    channel: str = Field(description="the channel")
    lane: str = Field(description="the target whose model is meant")
    against: list[Opponent] = Field(min_length=1, description="champion, reference")
    champion: Sensed | None = Field(None, description="set by sense: what the channel names")
    reference: Sensed | None = Field(None, description="set by sense: what a person pinned as its reference")


class CandidateSettings(StepSettings):
    """What to predict on."""

    task: str = Field(description="the ML task: text-classification")
    runtime: Runtime = Field(description="what runs the model: openvino, onnxruntime, onnxruntime-cuda or -tensorrt")
    served: ServedSettings | None = Field(
        None, description="what is served and answers the rows, too: model, channel, lane, against; left out: nothing"
    )


@dataclass(frozen=True)
class MeasureInputs:
    """What is timed against what."""

    checkpoint: Path = port(PortType.CHECKPOINT, "the baseline, run by PyTorch eager in float32")
    exported: Path = port(PortType.MODEL, "float32 as exported")
    optimized: Path = port(PortType.MODEL, "float32 with fused operators")
    candidate: Path = port(PortType.MODEL, "the candidate")
    rows: Path = port(PortType.ROWS, "evaluation rows, timed at their real lengths")


@dataclass(frozen=True)
class MeasureOutputs:
    """The measurements."""

    measurements: Path = port(PortType.MEASUREMENTS, "latency, throughput, load time, memory, size")


class MeasureSettings(StepSettings):
    """What to time, and how long."""

    task: str = Field(description="the ML task: text-classification")
    runtime: Runtime = Field(description="what runs the model: openvino, onnxruntime, onnxruntime-cuda or -tensorrt")
    cells: list[Cell] = Field(
        min_length=1,
        description="what is timed: batch_size and sequence_length of each; the first one is what min_speedup judges",
    )
    seconds_per_cell: float = Field(6.0, gt=0, le=600, description="time budget of a cell, all models together")
    processes: int = Field(
        3, ge=1, le=10, description="fresh processes that share a cell's time budget; 1: the step's own, alone"
    )
    throughput_rows: int = Field(512, ge=0, description="evaluation texts timed at their real lengths; 0: none")
    hardware_class: str | None = Field(None, description="what the recipe declares; another one is an error")
    seed: int = Field(0, ge=0, description="of tokens and of the order in which models take turns")


class SmokeMode(StrEnum):
    """Whether a lane is tried in a real server."""

    REQUIRED = "required"
    IF_AVAILABLE = "if-available"
    OFF = "off"


@dataclass(frozen=True)
class SmokeInputs:
    """A lane's model, and what it is known to say."""

    model: Path = port(PortType.MODEL, "the candidate")
    predictions: Path = port(PortType.PREDICTIONS, "what the candidate said in the evaluation")
    measurements: Path = port(PortType.MEASUREMENTS, "what it was measured under: threads")
    rows: Path = port(PortType.ROWS, "evaluation rows, to ask")


@dataclass(frozen=True)
class SmokeOutputs:
    """What the server said."""

    smoke: Path = port(PortType.SMOKE, "smoke.json: the serving files tried, and what was found")


class SmokeSettings(StepSettings):
    """How to serve, and how much to ask."""

    target: str = Field(description="the lane's name, below which its serving files lie")
    name: str = Field(description="the model's name in the registry, and in the server")
    runtime: Runtime = Field(description="what runs the model: onnxruntime")
    mode: SmokeMode = Field(
        SmokeMode.IF_AVAILABLE, description="required, if-available (where MODELMILL_TRITON names a server) or off"
    )
    texts: int = Field(1024, ge=1, description="evaluation texts to ask, about, in whole batches of the evaluation")
    sequence_length: int = Field(128, ge=1, le=8192, description="tokens of the texts that are timed")
    seconds: float = Field(6.0, gt=0, le=600, description="time budget of the timed requests")
    seed: int = Field(0, ge=0, description="of the order in which server and process take turns")
    server: str | None = Field(None, description="set by resolve: the versions in the server's environment")
    code: str | None = Field(None, description="set by resolve: sha256 of the model.py that is tried")


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
    version=4,
    summary="Predict the evaluation rows with the candidate on the target's runtime, and with what is served now.",
    inputs=CandidateInputs,
    outputs=CandidateOutputs,
    settings=CandidateSettings,
    function="modelmill.steps.evaluate.run:candidate",
    sense="modelmill.steps.evaluate.sense:sense",
    packages=("transformers", "evaluate"),
    packages_of=packages_of,
    key_on=frozenset({KeyOn.INSTRUCTION_SET}),
    key_on_of=key_on_of,
)
MEASURE = StepContract(
    name="evaluate",
    part="measure",
    version=7,
    summary="Time the baseline, the best unquantized model and the candidate in turn, in several fresh processes.",
    inputs=MeasureInputs,
    outputs=MeasureOutputs,
    settings=MeasureSettings,
    function="modelmill.steps.evaluate.run:measure",
    kind=Kind.MEASURED,
    packages=("torch", "transformers"),
    packages_of=packages_of,
    key_on=frozenset({KeyOn.HARDWARE_CLASS}),
)
SMOKE = StepContract(
    name="evaluate",
    part="smoke",
    version=1,
    summary="Serve the candidate in a real Triton, and hold its answers and its time against the evaluation's.",
    inputs=SmokeInputs,
    outputs=SmokeOutputs,
    settings=SmokeSettings,
    function="modelmill.steps.evaluate.run:smoke",
    kind=Kind.MEASURED,
    packages=("onnxruntime", "tokenizers", "transformers"),
    key_on=frozenset({KeyOn.HARDWARE_CLASS}),
    resolve="modelmill.steps.evaluate.resolve:resolve",
)
PARTS = (BASELINE, CANDIDATE, MEASURE, SMOKE)
