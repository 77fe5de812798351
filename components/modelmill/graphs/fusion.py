"""Fusion for a runtime: what its kernels gain by, and no more.

For ONNX Runtime's CPU provider attention is fused, and leaves its mask out where nothing is padded. Residual sums with
their normalisation and biased GELU are not: ONNX Runtime 1.31's SkipLayerNormalization takes 9 ms of 40 where Add and
LayerNormalization take 2, and BiasGelu keeps the bias out of the integer product before it (profiles of
all-MiniLM-L6-v2 in int8, batch 1, 128 tokens; the step's README has the table).
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common as passes

from modelmill.graphs.attention import fuse_attention
from modelmill.graphs.padding import split_by_padding


def fuse_for_onnxruntime_cpu(model: ir.Model) -> dict[str, int]:
    """Fuse a graph in place.

    Returns:
        Fused operator → how many; operators that were not found are left out.
    """
    attentions = fuse_attention(model)
    passes.RemoveUnusedNodesPass()(model)
    split_by_padding(model)
    return {"Attention": attentions} if attentions else {}


def leave_to_runtime(model: ir.Model) -> dict[str, int]:
    """Leave a graph as it was exported: OpenVINO and TensorRT fuse while they load, and know ONNX's own operators best.

    So does ONNX Runtime's CUDA provider with all but attention, whose fused operator has no islands.

    Returns:
        Nothing: no operator is fused here.
    """
    passes.RemoveUnusedNodesPass()(model)
    return {}


def attention_left(model: ir.Model) -> int:
    """Softmaxes whose weights are multiplied with values: attention that no fusion took."""
    softmaxes = [node for node in model.graph if node.op_type == "Softmax"]
    return sum(any(use.node.op_type == "MatMul" for use in node.outputs[0].uses()) for node in softmaxes)
