"""The shapes that TensorRT builds an engine for, as ONNX Runtime's provider takes them.

Source: onnxruntime.ai, TensorRT Execution Provider, "Explicit shape range for dynamic shape input". Triton's ONNX
Runtime backend takes the same names since its 24.04 (triton-inference-server/onnxruntime_backend, README).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelmill.core.model import ShapeProfile, Tensor


def profile_options(inputs: Sequence[Tensor], shapes: ShapeProfile | None) -> dict[str, str]:
    """Smallest, usual and largest shape of all inputs.

    Args:
        inputs: Of one graph.
        shapes: What its engine is built for; None: for the shapes that come, and anew where others do.

    Returns:
        ``trt_profile_*_shapes`` → ``name:1x16,…``; empty without shapes, or where an axis is neither of rows nor of
        tokens.
    """
    axes = {size for item in inputs for size in item.shape if isinstance(size, str)}
    if shapes is None or not axes <= {"batch", "sequence"}:
        return {}
    ends: dict[str, Mapping[str, int]] = {
        "min": {"batch": 1, "sequence": 1},
        "opt": {"batch": shapes.usual_batch, "sequence": shapes.usual_length},
        "max": {"batch": shapes.largest_batch, "sequence": shapes.largest_length},
    }

    def shape(item: Tensor, sizes: Mapping[str, int]) -> str:
        return "x".join(str(sizes[size] if isinstance(size, str) else size) for size in item.shape)

    return {
        f"trt_profile_{end}_shapes": ",".join(f"{item.name}:{shape(item, sizes)}" for item in inputs)
        for end, sizes in ends.items()
    }
