"""The contract of export: a checkpoint becomes ONNX graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from modelmill.core.contract import PortType, StepContract, port
from modelmill.step_settings import StepSettings


@dataclass(frozen=True)
class Inputs:
    """What to export."""

    checkpoint: Path = port(PortType.CHECKPOINT, "the model to export")


@dataclass(frozen=True)
class Outputs:
    """What was exported."""

    model: Path = port(PortType.MODEL, "ONNX graphs with dynamic batch and sequence, float32, checked against PyTorch")


class Settings(StepSettings):
    """How to export."""

    task: str = Field(description="the ML task: text-classification")
    opset: int = Field(20, ge=17, le=24, description="ONNX opset of the default domain")
    max_relative_deviation: float = Field(
        1e-3,
        gt=0,
        description="largest |ONNX minus PyTorch| over the outputs' largest magnitude that is allowed",
    )


STEP = StepContract(
    name="export",
    version=2,
    summary="Export the checkpoint to ONNX, strip what tells of the machine, and check it against PyTorch.",
    inputs=Inputs,
    outputs=Outputs,
    settings=Settings,
    function="modelmill.steps.export.run:run",
    packages=("torch", "transformers", "onnx", "onnxscript", "onnx-ir"),
)
PARTS = (STEP,)
