"""What a runtime offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    # Recipes name runtimes and precisions: reading one does not wait for numpy.
    import numpy as np

    from modelmill.core.model import MicroBatching


class Device(StrEnum):
    """Where a lane's model runs."""

    CPU = "cpu"
    GPU = "gpu"


class Runtime(StrEnum):
    """What runs a lane's model."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    ONNXRUNTIME_TENSORRT = "onnxruntime-tensorrt"


class Precision(StrEnum):
    """What a model's weights and products are computed in."""

    FLOAT32 = "float32"
    BF16 = "bf16"
    """Products in bf16, where the processor can: OpenVINO's from a float32 graph, on a GPU of a bf16 one."""
    FP16 = "fp16"
    """A graph of fp16, with float32 where fp16 does not reach."""
    INT8 = "int8"


@dataclass(frozen=True)
class Capabilities:
    """What a runtime can do here.

    Attributes:
        runtime: Its name in recipes.
        device: Where it runs.
        precisions: What it can serve.
        module: The module with ``open_session``.
        packages: Distributions that must be installed, and whose versions shape what it computes.
    """

    runtime: Runtime
    device: Device
    precisions: tuple[Precision, ...]
    module: str
    packages: tuple[str, ...]


class Session(Protocol):
    """A loaded model artifact, ready to answer."""

    def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run all of the model's graphs on one padded batch.

        Args:
            batch: Input name → int64, shape (batch, sequence); columns that no graph takes are ignored.

        Returns:
            Value name → array, for every value that the execution gives.
        """
        ...


class OpenSession(Protocol):
    """The one function of a runtime's module: it runs a batch whole."""

    def __call__(self, directory: Path, threads: int) -> Session:
        """Load the model artifact in ``directory`` to run on ``threads`` threads."""
        ...


class OpenDivided(Protocol):
    """What steps open models with (`modelmill.targets.registry.open_session_of`)."""

    def __call__(self, directory: Path, threads: int, micro_batching: MicroBatching | None = None) -> Session:
        """Load a model artifact to run on ``threads`` threads, batches divided as asked, else as model.json says."""
        ...
