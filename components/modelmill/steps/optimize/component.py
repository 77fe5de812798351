"""optimize as a Kubeflow component, for a pipeline of your own."""

# kfp reads the annotations themselves: no `from __future__ import annotations` here.
from kfp import dsl

from modelmill.core.image import CPU_IMAGE


@dsl.container_component
def optimize(
    model: dsl.Input[dsl.Model],
    output_model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    task: str,
    runtime: str,
    max_relative_deviation: float = 0.001,
) -> dsl.ContainerSpec:
    """Fuse operators for the target's runtime, count them, and check that the outputs stay.

    Args:
        model: exported graphs.
        output_model: the same graphs with fused operators, float32, equal within the bound.
        metrics: the step's numbers.
        task: the ML task: text-classification.
        runtime: what runs the model: openvino, onnxruntime, onnxruntime-cuda or -tensorrt.
        max_relative_deviation: largest |fused minus exported| over the outputs' largest magnitude that is allowed.
    """
    return dsl.ContainerSpec(
        image=CPU_IMAGE,
        command=["modelmill", "component", "optimize"],
        args=[
            f"--input=model={model.path}",
            f"--output=output_model={output_model.path}",
            "--executor-input={{$}}",
        ],
    )
