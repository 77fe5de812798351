"""The contract of optimize: graphs fused for the target's runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from modelmill.core.contract import PortType, StepContract, port
from modelmill.step_settings import StepSettings
from modelmill.targets.base import Runtime
from modelmill.targets.registry import packages_of


@dataclass(frozen=True)
class Inputs:
    """What to fuse."""

    model: Path = port(PortType.MODEL, "exported graphs")


@dataclass(frozen=True)
class Outputs:
    """What was fused."""

    model: Path = port(PortType.MODEL, "the same graphs with fused operators, float32, equal within the bound")


class Settings(StepSettings):
    """What to fuse for."""

    task: str = Field(description="the ML task: text-classification")
    runtime: Runtime = Field(description="what runs the model: openvino, onnxruntime, onnxruntime-cuda or -tensorrt")
    max_relative_deviation: float = Field(
        1e-3,
        gt=0,
        description="largest |fused minus exported| over the outputs' largest magnitude that is allowed",
    )


STEP = StepContract(
    name="optimize",
    version=3,
    summary="Fuse operators for the target's runtime, count them, and check that the outputs stay.",
    inputs=Inputs,
    outputs=Outputs,
    settings=Settings,
    function="modelmill.steps.optimize.run:run",
    packages=("onnx", "onnxruntime", "onnxscript", "onnx-ir"),
    packages_of=packages_of,
)
PARTS = (STEP,)
