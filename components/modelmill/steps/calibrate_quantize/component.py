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
    scheme: Optional[str] = None,
    embeddings: bool = True,
    calibration_rows: int = 256,
) -> dsl.ContainerSpec:
    """Choose how to quantize within the precisions that the recipe allows.

    Args:
        model: optimized graphs.
        calibrate: rows for calibration.
        tune: rows that compare candidates.
        choice: choice.json.
        metrics: the step's numbers.
        task: the ML task: text-classification.
        runtime: what runs the model: onnxruntime.
        precisions: allowed (float32, int8); the choice is among them.
        scheme: demanded (none, dynamic, static); None leaves it to the choice.
        embeddings: whether embedding tables become int8 too.
        calibration_rows: rows read for static ranges.
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
        runtime: what runs the model: onnxruntime.
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
