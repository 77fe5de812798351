"""ONNX Runtime on an NVIDIA GPU: the TensorRT provider, what it does not take on CUDA's.

Source of the options: onnxruntime.ai, TensorRT Execution Provider, "Configurations" and "Explicit shape range for
dynamic shape input". No option names a precision: then the provider builds networks that keep each type that the graph
states (onnxruntime#18707), float32 islands and int8 included, where ``trt_fp16_enable`` lets TensorRT decide; NVIDIA's
"Explicit Quantization" says the same of its own flags.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

from modelmill.core.cache import cache_directory
from modelmill.core.manifest import sha256_of
from modelmill.core.model import Component, ShapeProfile, read_model
from modelmill.targets.base import Runtime
from modelmill.targets.chain import ChainSession
from modelmill.targets.onnxruntime_cuda import (
    CUDA,
    CUDA_OPTIONS,
    TENSORRT,
    Providers,
    open_on,
    require_provider_of,
)
from modelmill.targets.shape_profiles import profile_options

ENGINES_KEPT = 16
ENGINE_KEPT_SECONDS = 7 * 24 * 3600
"""What was not used for so long goes, past so many of them: an engine is as large as its model."""


def open_session(directory: Path, threads: int) -> ChainSession:
    """Load the model artifact in ``directory`` onto the GPU; the first time TensorRT builds an engine, for minutes.

    Args:
        directory: What an export, optimize or calibrate-quantize step wrote.
        threads: Of what runs on the CPU beside it.

    Raises:
        HardwareError: There is no GPU, or its driver, CUDA's or TensorRT's libraries are not.
        ModelError: A graph is damaged, or its inputs and outputs are not those of model.json.
    """
    require_provider_of(Runtime.ONNXRUNTIME_TENSORRT)
    shapes, kept = read_model(directory).shapes, cache_directory() / "tensorrt"

    def providers(component: Component) -> Providers:
        engines = engines_of(directory, component, kept)
        return [(TENSORRT, provider_options(component, shapes, engines)), (CUDA, CUDA_OPTIONS)]

    return open_on(directory, threads, Runtime.ONNXRUNTIME_TENSORRT, providers)


def engines_of(directory: Path, component: Component, kept: Path) -> Path:
    """The folder for one graph's engines, by the bytes of the graph and its weights.

    The provider itself names an engine by file, nodes and tensors, never by weights or scales (onnxruntime#6455,
    #32254), and a model that is trained again has the same names: in one folder, the former's engine would answer.

    Args:
        directory: The model artifact.
        component: Its graph.
        kept: Where the folders of all graphs lie; those that nobody used for long are removed.
    """
    digest = hashlib.sha256()
    for file in (component.file, *component.external_data):
        digest.update(sha256_of(directory / file).encode())
    engines = kept / digest.hexdigest()
    # An engine is code: nobody else may put one there.
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    engines.mkdir(mode=0o700, exist_ok=True)
    engines.touch()
    by_use = sorted((item for item in kept.iterdir() if item.is_dir()), key=lambda item: -item.stat().st_mtime)
    for item in by_use[ENGINES_KEPT:]:
        if time.time() - item.stat().st_mtime > ENGINE_KEPT_SECONDS:
            shutil.rmtree(item, ignore_errors=True)
    return engines


def provider_options(component: Component, shapes: ShapeProfile | None, engines: Path) -> dict[str, str]:
    """The provider's options for a graph.

    Args:
        component: Its inputs.
        shapes: What an engine is built for; None: for the shapes that come, and anew where others do.
        engines: Where this graph's engines are kept; the provider names them by GPU, version and shapes. What it
            learns of the GPU's kernels lies beside the folder, for all graphs.
    """
    found = {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(engines.parent),
    }
    return {**found, **profile_options(component.inputs, shapes)}
