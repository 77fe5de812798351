"""export as a Kubeflow component, for a pipeline of your own."""

# kfp reads the annotations themselves: no `from __future__ import annotations` here.
from kfp import dsl

from modelmill.core.image import CPU_IMAGE


@dsl.container_component
def export(
    checkpoint: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    task: str,
    opset: int = 20,
    max_relative_deviation: float = 0.001,
) -> dsl.ContainerSpec:
    """Export the checkpoint to ONNX, strip what tells of the machine, and check it against PyTorch.

    Args:
        checkpoint: the model to export.
        model: ONNX graphs with dynamic batch and sequence, float32, checked against PyTorch.
        metrics: the step's numbers.
        task: the ML task: text-classification.
        opset: ONNX opset of the default domain.
        max_relative_deviation: largest |ONNX minus PyTorch| over the outputs' largest magnitude that is allowed.
    """
    return dsl.ContainerSpec(
        image=CPU_IMAGE,
        command=["modelmill", "component", "export"],
        args=[
            f"--input=checkpoint={checkpoint.path}",
            f"--output=model={model.path}",
            "--executor-input={{$}}",
        ],
    )
