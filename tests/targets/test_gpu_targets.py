"""GPU runtimes on a machine that has none: what they are asked for, and what they say."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from modelmill.core import hardware
from modelmill.core.errors import HardwareError
from modelmill.core.model import Component, ShapeProfile, Tensor, read_model
from modelmill.targets import registry
from modelmill.targets.base import Device, Runtime
from modelmill.targets.onnxruntime_cuda import CUDA, PROVIDERS, TENSORRT, require_started
from modelmill.targets.onnxruntime_tensorrt import ENGINES_KEPT, engines_of, provider_options
from modelmill.targets.pytorch import PytorchSession, load_checkpoint
from modelmill.tasks import registry as tasks
from modelmill.tasks.samples import random_batch

GPU = [Runtime.ONNXRUNTIME_CUDA, Runtime.ONNXRUNTIME_TENSORRT]
SHAPES = ShapeProfile(usual_batch=1, usual_length=128, largest_batch=32, largest_length=512)

pytestmark = pytest.mark.skipif(
    bool({CUDA, TENSORRT} & set(ort.get_available_providers())), reason="the build of ONNX Runtime here is a GPU's"
)


@pytest.mark.parametrize("runtime", GPU)
def test_without_a_gpu_a_session_says_what_is_missing_and_where_to_go(runtime: Runtime, exported: Path) -> None:
    with pytest.raises(HardwareError) as refused:
        registry.open_session_of(runtime)(exported, 1)
    said = str(refused.value)
    for words in (f"the runtime {runtime.value} needs an NVIDIA GPU", PROVIDERS[runtime], "CPUExecutionProvider",
                  "nothing was timed", "modelmill compile RECIPE", "pools.gpu", "search: {trials: 0}"):  # fmt: skip
        assert words in said
    assert refused.value.exit_code == 2


def test_a_provider_that_gives_way_to_the_cpu_is_an_error_and_not_a_slow_gpu(exported: Path) -> None:
    session = ort.InferenceSession(str(exported / "model.onnx"), providers=["CPUExecutionProvider"])
    with pytest.raises(HardwareError, match="did not start: CUDAExecutionProvider is built in"):
        require_started(session, CUDA, Runtime.ONNXRUNTIME_CUDA)


def test_tensorrts_engine_is_built_for_the_shapes_that_come(exported: Path, tmp_path: Path) -> None:
    component = read_model(exported).components["model"]
    options = provider_options(component, SHAPES, tmp_path)
    names = [item.name for item in component.inputs]
    for end, shape in (("min", "1x1"), ("opt", "1x128"), ("max", "32x512")):
        assert options[f"trt_profile_{end}_shapes"] == ",".join(f"{name}:{shape}" for name in names)
    assert (options["trt_engine_cache_enable"], options["trt_engine_cache_path"]) == ("True", str(tmp_path))


def test_another_models_engine_never_answers(exported: Path, tmp_path: Path) -> None:
    """The provider names an engine by names alone, and a model that is trained again has the same ones."""
    component = read_model(exported).components["model"]
    kept, again, trained = tmp_path / "kept", tmp_path / "again", tmp_path / "trained"
    shutil.copytree(exported, again)
    shutil.copytree(exported, trained)
    graph = ir.load(trained / component.file)
    weight = next(value for value in graph.graph.initializers.values() if value.const_value.dtype == ir.DataType.FLOAT)
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1.01), name=weight.name)
    ir.save(graph, trained / component.file)
    engines = [engines_of(folder, component, kept) for folder in (exported, again, trained)]
    assert engines[0] == engines[1] != engines[2]
    assert all(each.parent == kept and each.stat().st_mode & 0o077 == 0 for each in engines)


def test_engines_that_nobody_used_for_long_go(exported: Path, tmp_path: Path) -> None:
    component = read_model(exported).components["model"]
    old, young = tmp_path / "old", tmp_path / "young"
    for folder in (old, young, *(tmp_path / f"used-{number}" for number in range(ENGINES_KEPT))):
        folder.mkdir()
    long_ago = time.time() - 30 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    os.utime(young, (time.time() - 60, time.time() - 60))
    engines = engines_of(exported, component, tmp_path)
    assert engines.is_dir()
    assert young.is_dir()
    assert not old.exists()


def test_no_option_lets_tensorrt_choose_a_precision(exported: Path, tmp_path: Path) -> None:
    options = provider_options(read_model(exported).components["model"], SHAPES, tmp_path)
    assert not [name for name in options if any(word in name for word in ("fp16", "bf16", "int8"))]


def test_a_graph_with_other_axes_has_no_profile(tmp_path: Path) -> None:
    hidden = Tensor(name="hidden", dtype="float32", shape=["batch", "sequence", 32])
    crossed = Tensor(name="crossed", dtype="float32", shape=["batch", "choices", 32])

    def options(item: Tensor, shapes: ShapeProfile | None) -> dict[str, str]:
        return provider_options(Component(file="model.onnx", inputs=[item], outputs=[]), shapes, tmp_path)

    assert options(hidden, SHAPES)["trt_profile_max_shapes"] == "hidden:32x512x32"
    assert "trt_profile_max_shapes" not in options(crossed, SHAPES)
    assert "trt_profile_max_shapes" not in options(hidden, None)


@pytest.mark.parametrize("runtime", GPU)
def test_gpu_runtimes_are_declared_for_a_gpu_and_need_no_package_of_their_own_to_make_models(runtime: Runtime) -> None:
    declared = registry.RUNTIMES[runtime]
    assert declared.device is Device.GPU
    registry.require_installed(runtime, "here")
    assert registry.lacks_gpu(runtime)
    assert not registry.lacks_gpu(Runtime.ONNXRUNTIME)


def test_a_gpus_class_is_its_name_and_its_drivers_version(tmp_path: Path) -> None:
    card = tmp_path / "gpus" / "0000:3b:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA L4\nIRQ:   \t\t 77\n")
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun\nGCC version: 12\n"
    )
    found = hardware.gpu(tmp_path)
    assert found is not None
    assert (found.device, found.model) == ("gpu", "NVIDIA L4 driver 580.65.06")
    assert found.hardware_class == "gpu/nvidia-l4-driver-580-65-06"
    # Ranges are found on the CPU beside it, whose flags shape their last bits.
    assert found.instruction_set == hardware.cpu().instruction_set
    assert hardware.gpu(tmp_path / "nowhere") is None


def test_the_baseline_may_be_placed_elsewhere_and_computed_in_halves(tiny_bert: Path) -> None:
    task = tasks.get("text-classification")
    model, processor = load_checkpoint(tiny_bert, task)
    batch = random_batch(task, processor, 3, 9, padded=True)
    whole = PytorchSession(model, processor, task, 1).run(batch)["logits"]
    half = PytorchSession(model, processor, task, 1, ("cpu", torch.bfloat16)).run(batch)["logits"]
    assert half.dtype == np.float32
    assert 0 < np.abs(half - whole).max() < 0.05 * max(1.0, np.abs(whole).max())
