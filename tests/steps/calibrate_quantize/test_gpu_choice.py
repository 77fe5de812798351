"""Choosing and applying for a GPU on a machine without one: by rule it is made, by trials it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lane_steps import TASK, choose_settings, fresh, run_choose
from modelmill.core.errors import HardwareError, RecipeError
from modelmill.core.evidence import Cell
from modelmill.core.model import ShapeProfile, read_model
from modelmill.core.progress import SilentProgress
from modelmill.steps.calibrate_quantize import contract
from modelmill.steps.calibrate_quantize import run as quantize_run
from modelmill.steps.calibrate_quantize.run import allowed, by_rule
from modelmill.steps.calibrate_quantize.space import GPU, SPACE
from modelmill.steps.optimize import contract as optimize
from modelmill.steps.optimize import run as optimize_run
from modelmill.targets.base import Precision, Runtime
from modelmill.targets.registry import RUNTIMES

LaneOf = Callable[[str], Any]
TENSORRT, CUDA = Runtime.ONNXRUNTIME_TENSORRT, Runtime.ONNXRUNTIME_CUDA


def named(runtime: Runtime, precisions: list[Precision] | None = None, **changes: Any) -> list[str]:
    settings = choose_settings(runtime=runtime, precisions=precisions or list(RUNTIMES[runtime].precisions), **changes)
    return [candidate.name for candidate in allowed(settings, ["avx2"])]


def test_each_gpu_runtime_has_candidates_in_every_precision_it_serves() -> None:
    for runtime in GPU:
        for precision in RUNTIMES[runtime].precisions:
            assert named(runtime, [precision]), (runtime, precision)
    names = [(runtime, declared.name) for declared in SPACE for runtime in declared.runtimes]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("runtime", "precisions", "first"),
    [
        (TENSORRT, None, "static int8, rest in fp16"),
        (TENSORRT, [Precision.INT8], "static int8"),
        (TENSORRT, [Precision.FLOAT32, Precision.FP16], "fp16"),
        (CUDA, None, "fp16"),
        (CUDA, [Precision.BF16, Precision.FLOAT32], "bf16"),
    ],
)
def test_the_first_candidate_is_of_what_the_lane_allows(
    runtime: Runtime, precisions: list[Precision] | None, first: str
) -> None:
    assert named(runtime, precisions)[0] == first


def test_a_gpus_weights_keep_eight_bits_whatever_processor_made_them() -> None:
    settings = choose_settings(runtime=TENSORRT, precisions=[Precision.INT8])
    assert by_rule(allowed(settings, ["avx2"])).reduce_range is False


def test_dynamic_int8_is_no_scheme_of_a_gpu() -> None:
    with pytest.raises(RecipeError, match="dynamic gives none of the allowed precisions"):
        named(TENSORRT, scheme=contract.Scheme.DYNAMIC)


def run_optimize_for(runtime: Runtime, exported: Path, output: Path) -> Path:
    settings = optimize.Settings(task=TASK, runtime=runtime)
    outputs = optimize.Outputs(fresh(output))
    report = optimize_run.run(optimize.Inputs(exported), outputs, settings, SilentProgress())
    assert report.facts["fused"] == {"model": {}}
    return output


@pytest.mark.parametrize(("runtime", "precision"), [(TENSORRT, "int8"), (CUDA, "fp16")])
def test_by_rule_the_model_is_made_without_a_gpu(
    lane_of: LaneOf, tmp_path: Path, runtime: Runtime, precision: str
) -> None:
    lane = lane_of("bert")
    model = run_optimize_for(runtime, lane.exported, tmp_path / "optimized")
    cells = [Cell(batch_size=4, sequence_length=24), Cell(batch_size=128, sequence_length=16)]
    served = list(RUNTIMES[runtime].precisions)
    choice = run_choose(model, lane.rows, tmp_path / "choice", runtime=runtime, precisions=served, cells=cells)
    assert choice.precision == precision
    inputs = contract.ApplyInputs(model=model, choice=tmp_path / "choice", calibrate=lane.rows)
    outputs, settings = (
        contract.ApplyOutputs(fresh(tmp_path / "model")),
        contract.ApplySettings(task=TASK, runtime=runtime),
    )
    report = quantize_run.apply(inputs, outputs, settings, SilentProgress())
    deviation: Any = report.facts["deviation"]
    assert 0 < deviation["relative_deviation"] < 0.2
    document = read_model(tmp_path / "model")
    expected = ShapeProfile(usual_batch=4, usual_length=24, largest_batch=128, largest_length=document.max_length)
    assert document.shapes == (expected if runtime is TENSORRT else None)
    written = json.loads((tmp_path / "model" / "model.json").read_text("utf-8"))
    assert (written["precision"], written["rest"]) == (precision, "fp16")


@pytest.mark.parametrize("precisions", [[Precision.FLOAT32, Precision.FP16], [Precision.FLOAT32]])
def test_trials_need_the_gpu_and_say_so_before_any(
    lane_of: LaneOf, tmp_path: Path, precisions: list[Precision]
) -> None:
    lane = lane_of("bert")
    with pytest.raises(HardwareError, match="onnxruntime-cuda needs an NVIDIA GPU") as refused:
        run_choose(
            lane.exported,
            lane.rows,
            tmp_path / "choice",
            runtime=CUDA,
            precisions=precisions,
            search=contract.Search(trials=4),
        )
    assert "search: {trials: 0}" in str(refused.value)
    assert not (tmp_path / "choice" / "choice.json").exists()
