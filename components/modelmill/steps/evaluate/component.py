"""evaluate as Kubeflow components, one for each part, for a pipeline of your own."""

# kfp reads the annotations themselves: no `from __future__ import annotations` here.
from typing import Optional

from kfp import dsl

from modelmill.core.image import CPU_IMAGE


@dsl.container_component
def evaluate_baseline(
    checkpoint: dsl.Input[dsl.Model],
    rows: dsl.Input[dsl.Dataset],
    predictions: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    task: str,
) -> dsl.ContainerSpec:
    """Predict the evaluation rows with the checkpoint in PyTorch, once for all lanes.

    Args:
        checkpoint: the retrained model, run by PyTorch eager in float32.
        rows: evaluation rows.
        predictions: outputs and predictions of the baseline, in the rows' order.
        metrics: the step's numbers.
        classification: what was predicted for rows of each label.
        task: the ML task: text-classification.
    """
    return dsl.ContainerSpec(
        image=CPU_IMAGE,
        command=["modelmill", "component", "evaluate-baseline"],
        args=[
            f"--input=checkpoint={checkpoint.path}",
            f"--input=rows={rows.path}",
            f"--output=predictions={predictions.path}",
            "--executor-input={{$}}",
        ],
    )


@dsl.container_component
def evaluate_candidate(
    model: dsl.Input[dsl.Model],
    rows: dsl.Input[dsl.Dataset],
    predictions: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    task: str,
    runtime: str,
) -> dsl.ContainerSpec:
    """Predict the evaluation rows with the candidate on the target's runtime.

    Args:
        model: the candidate.
        rows: evaluation rows.
        predictions: outputs and predictions of the candidate, in the rows' order.
        metrics: the step's numbers.
        classification: what was predicted for rows of each label.
        task: the ML task: text-classification.
        runtime: what runs the model: onnxruntime.
    """
    return dsl.ContainerSpec(
        image=CPU_IMAGE,
        command=["modelmill", "component", "evaluate-candidate"],
        args=[
            f"--input=model={model.path}",
            f"--input=rows={rows.path}",
            f"--output=predictions={predictions.path}",
            "--executor-input={{$}}",
        ],
    )


@dsl.container_component
def evaluate_measure(
    checkpoint: dsl.Input[dsl.Model],
    exported: dsl.Input[dsl.Model],
    optimized: dsl.Input[dsl.Model],
    candidate: dsl.Input[dsl.Model],
    rows: dsl.Input[dsl.Dataset],
    measurements: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    task: str,
    runtime: str,
    cells: list,
    seconds_per_cell: float = 6.0,
    throughput_rows: int = 512,
    hardware_class: Optional[str] = None,
    seed: int = 0,
) -> dsl.ContainerSpec:
    """Time the baseline, the best unquantized model and the candidate in turn in one process.

    Args:
        checkpoint: the baseline, run by PyTorch eager in float32.
        exported: float32 as exported.
        optimized: float32 with fused operators.
        candidate: the candidate.
        rows: evaluation rows, for throughput at real lengths.
        measurements: latency, throughput, load time, memory, size.
        metrics: the step's numbers.
        task: the ML task: text-classification.
        runtime: what runs the model: onnxruntime.
        cells: what is timed: batch_size and sequence_length of each; the first one is what min_speedup judges.
        seconds_per_cell: time budget of a cell, all models together.
        throughput_rows: evaluation texts timed at their real lengths; 0: none.
        hardware_class: what the recipe declares; another one is an error.
        seed: of tokens and of the order in which models take turns.
    """
    return dsl.ContainerSpec(
        image=CPU_IMAGE,
        command=["modelmill", "component", "evaluate-measure"],
        args=[
            f"--input=checkpoint={checkpoint.path}",
            f"--input=exported={exported.path}",
            f"--input=optimized={optimized.path}",
            f"--input=candidate={candidate.path}",
            f"--input=rows={rows.path}",
            f"--output=measurements={measurements.path}",
            "--executor-input={{$}}",
        ],
    )
