"""calibrate-quantize as Kubeflow components, one for each part, for a pipeline of your own."""

# kfp reads the annotations themselves: no `from __future__ import annotations` here.
from typing import Optional

from kfp import dsl

from modelmill.core.image import CPU_IMAGE


@dsl.container_component
def calibrate_quantize_choose(
    model: dsl.Input[dsl.Model],
    calibrate: dsl.Input[dsl.Dataset],
    tune: dsl.Input[dsl.Dataset],
    choice: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    task: str,
    runtime: str,
    precisions: list,
    cells: list,
    scheme: Optional[str] = None,
    embeddings: bool = True,
    calibration_rows: int = 256,
    search_trials: int = 32,
    search_seconds: float = 300.0,
    search_min_gain: float = 1.05,
    search_seed: int = 0,
    search_max_calibration_rss_bytes: Optional[int] = None,
    bound_max_drop_points: float = 1.0,
    bound_confidence: float = 0.95,
    bound_max_size_ratio: Optional[float] = None,
    bound_max_batch_flips: Optional[int] = None,
    bound_metric: Optional[str] = None,
    bound_unit: Optional[str] = None,
    bound_slices: Optional[str] = None,
    hardware_class: Optional[str] = None,
) -> dsl.ContainerSpec:
    """Search for the fastest candidate within the recipe's bounds, on tune rows alone.

    Args:
        model: optimized graphs.
        calibrate: rows for calibration.
        tune: rows that compare candidates.
        choice: choice.json, and trials.json where candidates were tried.
        metrics: the step's numbers.
        task: the ML task: text-classification.
        runtime: what runs the model: openvino, onnxruntime, onnxruntime-cuda or -tensorrt.
        precisions: allowed (float32, bf16, fp16, int8); the choice is among them.
        cells: shapes of input whose speed counts, each alike.
        scheme: demanded (none, dynamic, static); None leaves it to the choice.
        embeddings: whether embedding tables become int8 too.
        calibration_rows: rows read for static ranges.
        search_trials: candidates to try at most; 0: the first allowed one, untried.
        search_seconds: after which no further trial starts.
        search_min_gain: how many times as fast int8 must be where float32 is allowed too.
        search_seed: of tokens and of the order in which models take turns.
        search_max_calibration_rss_bytes: memory of a calibrating process; batches shrink first; none: unbounded.
        bound_max_drop_points: points of accuracy that may be lost.
        bound_confidence: one-sided confidence of the paired interval.
        bound_max_size_ratio: the graphs' bytes over the checkpoint's safetensors.
        bound_max_batch_flips: predictions that may change with their batch.
        bound_metric: the gate's; of another than the task's primary one the search only says so.
        bound_unit: column of the gate's units, of which the search only says so.
        bound_slices: what the gate slices by, of which the search only says so.
        hardware_class: what the recipe declares; another one is an error.
    """
    return dsl.ContainerSpec(
        image=CPU_IMAGE,
        command=["modelmill", "component", "calibrate-quantize-choose"],
        args=[
            f"--input=model={model.path}",
            f"--input=calibrate={calibrate.path}",
            f"--input=tune={tune.path}",
            f"--output=choice={choice.path}",
            "--executor-input={{$}}",
        ],
    )


@dsl.container_component
def calibrate_quantize(
    model: dsl.Input[dsl.Model],
    choice: dsl.Input[dsl.Artifact],
    calibrate: dsl.Input[dsl.Dataset],
    output_model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    task: str,
    runtime: str,
) -> dsl.ContainerSpec:
    """Calibrate on the recipe's rows and quantize as chosen.

    Args:
        model: optimized graphs.
        choice: choice.json.
        calibrate: rows for static ranges.
        output_model: the candidate: graphs in the chosen precision.
        metrics: the step's numbers.
        task: the ML task: text-classification.
        runtime: what runs the model: openvino, onnxruntime, onnxruntime-cuda or -tensorrt.
    """
    return dsl.ContainerSpec(
        image=CPU_IMAGE,
        command=["modelmill", "component", "calibrate-quantize"],
        args=[
            f"--input=model={model.path}",
            f"--input=choice={choice.path}",
            f"--input=calibrate={calibrate.path}",
            f"--output=output_model={output_model.path}",
            "--executor-input={{$}}",
        ],
    )
