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
    store: Optional[str] = None,
    served: Optional[dict] = None,
) -> dsl.ContainerSpec:
    """Predict the evaluation rows with the candidate on the target's runtime, and with what is served now.

    Args:
        model: the candidate.
        rows: evaluation rows.
        predictions: outputs and predictions of the candidate, in the rows' order.
        metrics: the step's numbers.
        classification: what was predicted for rows of each label.
        task: the ML task: text-classification.
        runtime: what runs the model: openvino, onnxruntime, onnxruntime-cuda or -tensorrt.
        store: where the registry and the bundles live: s3://BUCKET/PREFIX, or a directory; with served alone.
        served: what is served and answers the rows, too: model, channel, lane, against; left out: nothing.
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
    processes: int = 3,
    throughput_rows: int = 512,
    hardware_class: Optional[str] = None,
    seed: int = 0,
) -> dsl.ContainerSpec:
    """Time the baseline, the best unquantized model and the candidate in turn, in several fresh processes.

    Args:
        checkpoint: the baseline, run by PyTorch eager in float32.
        exported: float32 as exported.
        optimized: float32 with fused operators.
        candidate: the candidate.
        rows: evaluation rows, timed at their real lengths.
        measurements: latency, throughput, load time, memory, size.
        metrics: the step's numbers.
        task: the ML task: text-classification.
        runtime: what runs the model: openvino, onnxruntime, onnxruntime-cuda or -tensorrt.
        cells: what is timed: batch_size and sequence_length of each; the first one is what min_speedup judges.
        seconds_per_cell: time budget of a cell, all models together.
        processes: fresh processes that share a cell's time budget; 1: the step's own, alone.
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


@dsl.container_component
def evaluate_smoke(
    model: dsl.Input[dsl.Model],
    predictions: dsl.Input[dsl.Artifact],
    measurements: dsl.Input[dsl.Artifact],
    rows: dsl.Input[dsl.Dataset],
    smoke: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    target: str,
    name: str,
    runtime: str,
    mode: str = "if-available",
    texts: int = 1024,
    sequence_length: int = 128,
    seconds: float = 6.0,
    seed: int = 0,
    server: Optional[str] = None,
    code: Optional[str] = None,
) -> dsl.ContainerSpec:
    """Serve the candidate in a real Triton, and hold its answers and its time against the evaluation's.

    Args:
        model: the candidate.
        predictions: what the candidate said in the evaluation.
        measurements: what it was measured under: threads.
        rows: evaluation rows, to ask.
        smoke: smoke.json: the serving files tried, and what was found.
        metrics: the step's numbers.
        target: the lane's name, below which its serving files lie.
        name: the model's name in the registry, and in the server.
        runtime: what runs the model: onnxruntime.
        mode: required, if-available (where MODELMILL_TRITON names a server) or off.
        texts: evaluation texts to ask, about, in whole batches of the evaluation.
        sequence_length: tokens of the texts that are timed.
        seconds: time budget of the timed requests.
        seed: of the order in which server and process take turns.
        server: set by resolve: the versions in the server's environment.
        code: set by resolve: sha256 of the model.py that is tried.
    """
    return dsl.ContainerSpec(
        image=CPU_IMAGE,
        command=["modelmill", "component", "evaluate-smoke"],
        args=[
            f"--input=model={model.path}",
            f"--input=predictions={predictions.path}",
            f"--input=measurements={measurements.path}",
            f"--input=rows={rows.path}",
            f"--output=smoke={smoke.path}",
            "--executor-input={{$}}",
        ],
    )
