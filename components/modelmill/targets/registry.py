"""Runtimes that this version runs, declared without loading any."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Any, cast

from modelmill.core.contract import BUILDS, KeyOn
from modelmill.core.errors import HardwareError, UsageError
from modelmill.core.hardware import Hardware, cpu, gpu
from modelmill.core.model import MicroBatching, read_model
from modelmill.targets.base import Capabilities, Device, OpenDivided, OpenSession, Precision, Runtime, Session

RUNTIMES: dict[Runtime, Capabilities] = {
    Runtime.ONNXRUNTIME: Capabilities(
        runtime=Runtime.ONNXRUNTIME,
        device=Device.CPU,
        precisions=(Precision.FLOAT32, Precision.INT8),
        module="modelmill.targets.onnxruntime_cpu",
        packages=("onnxruntime",),
    ),
    Runtime.OPENVINO: Capabilities(
        runtime=Runtime.OPENVINO,
        device=Device.CPU,
        precisions=(Precision.FLOAT32, Precision.BF16, Precision.INT8),
        module="modelmill.targets.openvino_cpu",
        packages=("openvino",),
    ),
    Runtime.ONNXRUNTIME_CUDA: Capabilities(
        runtime=Runtime.ONNXRUNTIME_CUDA,
        device=Device.GPU,
        precisions=(Precision.FLOAT32, Precision.BF16, Precision.FP16),
        module="modelmill.targets.onnxruntime_cuda",
        packages=("onnxruntime",),
    ),
    Runtime.ONNXRUNTIME_TENSORRT: Capabilities(
        runtime=Runtime.ONNXRUNTIME_TENSORRT,
        device=Device.GPU,
        precisions=(Precision.FLOAT32, Precision.BF16, Precision.FP16, Precision.INT8),
        module="modelmill.targets.onnxruntime_tensorrt",
        packages=("onnxruntime",),
    ),
}
GPU_PACKAGE = "onnxruntime-gpu"
"""The build of onnxruntime with providers for NVIDIA GPUs; it takes the place of the other."""


def on_gpu(runtime: Runtime) -> bool:
    """Whether a runtime serves on a GPU."""
    return RUNTIMES[runtime].device is Device.GPU


def machine_of(runtime: Runtime) -> Hardware:
    """What a measurement on a runtime is evidence for; where there is no GPU, what is made by rule is the CPU's."""
    return (gpu() if on_gpu(runtime) else None) or cpu()


def lacks_gpu(runtime: Runtime) -> bool:
    """Whether a runtime serves on a GPU, and this machine has not even the distribution that could."""
    return on_gpu(runtime) and not _has(GPU_PACKAGE)


def gpu_fix() -> str:
    """What to do where a GPU's runtime is asked for and there is none."""
    return (
        "run the recipe where the lane has a GPU: modelmill compile RECIPE --output FILE puts it on the deployment's "
        "pools.gpu and images.gpu; or on a machine with an NVIDIA GPU: pip install 'modelmill[gpu]'. "
        "search: {trials: 0} makes the model by rule anywhere, and times nothing"
    )


def require_gpu_for_search(runtime: Runtime, trials: int, where: str) -> None:
    """Check, before anything is trained for it, that a lane which tries candidates on a GPU may find one here.

    Args:
        runtime: The lane's.
        trials: That its search may take; 0: the model is made by rule, which needs no GPU.
        where: What asks for it.

    Raises:
        HardwareError: The build of ONNX Runtime with a GPU's providers is not installed.
    """
    if trials and lacks_gpu(runtime):
        what = f"the runtime {runtime.value} needs an NVIDIA GPU and {GPU_PACKAGE}, and neither is known here"
        raise HardwareError(what, where=where, fix=gpu_fix())


def packages_of(settings: Any) -> tuple[str, ...]:
    """The distributions of the runtime that a step's settings name: their versions shape what the step makes."""
    return RUNTIMES[settings.runtime].packages


def key_on_of(settings: Any) -> frozenset[KeyOn]:
    """What of the machine is in the key of a step that runs a model on the runtime which its settings name.

    Kernels of a GPU are chosen by the GPU, its driver and timings: another one's answers are other answers.
    """
    return frozenset({KeyOn.HARDWARE_CLASS}) if on_gpu(settings.runtime) else frozenset()


def require_installed(runtime: Runtime, where: str) -> None:
    """Check that a runtime's distributions are here.

    Args:
        runtime: What is to run a model.
        where: What asks for it.

    Raises:
        UsageError: One is not installed.
    """
    for package in RUNTIMES[runtime].packages:
        if not any(_has(name) for name in (package, *BUILDS.get(package, ()))):
            what = f"the runtime {runtime.value} needs the package {package}, which is not installed here"
            raise UsageError(what, where=where, fix=f"pip install 'modelmill[ml]' (or {package}) here")


def _has(package: str) -> bool:
    # This module is read wherever recipes are, and the metadata's reader loads what e-mail is parsed by.
    from importlib import metadata

    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def require_gpu(runtime: Runtime) -> None:
    """Check that a GPU's provider is in the ONNX Runtime that is installed; nothing, for a runtime on a CPU.

    Raises:
        HardwareError: It is not.
    """
    if on_gpu(runtime):
        importlib.import_module("modelmill.targets.onnxruntime_cuda").require_provider_of(runtime)


def open_session_of(runtime: Runtime) -> OpenDivided:
    """Load a runtime and return its ``open_session``, which divides batches where model.json says so.

    Raises:
        UsageError: The runtime is not installed.
    """
    require_installed(runtime, "runtime")
    undivided = cast("OpenSession", importlib.import_module(RUNTIMES[runtime].module).open_session)

    def open_session(directory: Path, threads: int, micro_batching: MicroBatching | None = None) -> Session:
        document = read_model(directory)
        division = micro_batching or document.micro_batching
        if division is None:
            return undivided(directory, threads)
        # numpy comes with the runtime, and this module is read where recipes are.
        dividing = importlib.import_module("modelmill.targets.micro_batches")
        return cast("Session", dividing.MicroBatchedSession(partial(undivided, directory), document, division, threads))

    return open_session
