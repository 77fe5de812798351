"""ONNX Runtime on an NVIDIA GPU: the CUDA provider.

Source of the options: onnxruntime.ai, CUDA Execution Provider, "Configuration Options".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnxruntime as ort

from modelmill.core.errors import HardwareError, ModelError
from modelmill.core.model import Component
from modelmill.targets.base import Runtime
from modelmill.targets.chain import ChainSession, first_line
from modelmill.targets.onnxruntime_cpu import REFUSALS, open_chain, session_options
from modelmill.targets.registry import gpu_fix

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
PROVIDERS = {Runtime.ONNXRUNTIME_CUDA: CUDA, Runtime.ONNXRUNTIME_TENSORRT: TENSORRT}
CUDA_OPTIONS = {
    # By itself it multiplies float32 with TF32's 10 bits of mantissa, and float32 would not be what it says.
    "use_tf32": "0",
}
Providers = list[tuple[str, Mapping[str, str]]]


def open_session(directory: Path, threads: int) -> ChainSession:
    """Load the model artifact in ``directory`` onto the GPU.

    Args:
        directory: What an export, optimize or calibrate-quantize step wrote.
        threads: Of what runs on the CPU beside it.

    Raises:
        HardwareError: There is no GPU, or its driver or libraries are not.
        ModelError: A graph is damaged, or its inputs and outputs are not those of model.json.
    """
    require_provider_of(Runtime.ONNXRUNTIME_CUDA)

    def providers(_: Component) -> Providers:
        return [(CUDA, CUDA_OPTIONS)]

    return open_on(directory, threads, Runtime.ONNXRUNTIME_CUDA, providers)


def open_on(
    directory: Path, threads: int, runtime: Runtime, providers_of: Callable[[Component], Providers]
) -> ChainSession:
    """Load a model artifact on a GPU's providers.

    Args:
        directory: The artifact.
        threads: Of what runs on the CPU.
        runtime: Who asks, for messages.
        providers_of: Graph → providers with their options, the one that must start first.

    Raises:
        HardwareError: The first provider does not start.
        ModelError: A graph is damaged, or is not model.json's.
    """
    # CUDA's libraries come as packages of their own, which the system's loader does not look through.
    ort.preload_dlls()

    def open_one(component: Component) -> ort.InferenceSession:
        providers, path = providers_of(component), directory / component.file
        try:
            session = ort.InferenceSession(
                str(path),
                session_options(threads),
                providers=[name for name, _ in providers],
                provider_options=[dict(options) for _, options in providers],
            )
        except REFUSALS as error:
            what = f"ONNX Runtime {ort.__version__} cannot load the graph for {runtime.value}: {first_line(error)}"
            fix = (
                "if it names an operator or type that is not implemented, take another precision in the recipe's "
                "target; if the graph is damaged, run the line again to make it anew"
            )
            raise ModelError(what, where=str(path), fix=fix) from None
        require_started(session, providers[0][0], runtime)
        return session

    return open_chain(directory, open_one)


def require_provider_of(runtime: Runtime) -> None:
    """Check that the installed ONNX Runtime was built with a runtime's provider.

    Raises:
        HardwareError: It was not.
    """
    offered, provider = ort.get_available_providers(), PROVIDERS[runtime]
    if provider not in offered:
        what = (
            f"the runtime {runtime.value} needs an NVIDIA GPU and onnxruntime-gpu, and ONNX Runtime here offers "
            f"{' and '.join(sorted(offered))}, not {provider}: nothing was timed"
        )
        raise HardwareError(what, where="targets: runtime", fix=gpu_fix())


def require_started(session: ort.InferenceSession, provider: str, runtime: Runtime) -> None:
    """Check that a session runs where it was asked to: ONNX Runtime goes on with the CPU, and only logs it.

    Raises:
        HardwareError: It does not.
    """
    if provider not in session.get_providers():
        what = (
            f"the runtime {runtime.value} did not start: {provider} is built in, and this machine has no NVIDIA GPU, "
            "or its driver or libraries are missing; ONNX Runtime would go on with the CPU: nothing was timed"
        )
        raise HardwareError(what, where="targets: runtime", fix=gpu_fix())
