"""Fusion for ONNX Runtime's CPU provider: what its kernels gain by, and no more.

Attention is fused. Residual sums with their normalisation and biased GELU are not: ONNX Runtime 1.31's
SkipLayerNormalization takes 9 ms of 40 where Add and LayerNormalization take 2, and BiasGelu keeps the bias out of the
integer product before it (profiles of all-MiniLM-L6-v2 in int8, batch 1, 128 tokens; the step's README has the table).
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common as passes

from modelmill.graphs.attention import fuse_attention


def fuse_for_onnxruntime_cpu(model: ir.Model) -> dict[str, int]:
    """Fuse a graph in place.

    Returns:
        Fused operator → how many; operators that were not found are left out.
    """
    attentions = fuse_attention(model)
    passes.RemoveUnusedNodesPass()(model)
    return {"Attention": attentions} if attentions else {}


def attention_left(model: ir.Model) -> int:
    """Softmaxes whose weights are multiplied with values: attention that no fusion took."""
    softmaxes = [node for node in model.graph if node.op_type == "Softmax"]
    return sum(any(use.node.op_type == "MatMul" for use in node.outputs[0].uses()) for node in softmaxes)
