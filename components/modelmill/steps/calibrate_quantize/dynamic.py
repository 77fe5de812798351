"""Dynamic int8: weights ahead of time, activations by their range in each batch.

The operators are ONNX's own (DynamicQuantizeLinear, MatMulInteger) and ONNX Runtime's QAttention. They are written here
rather than by onnxruntime.quantization.quantize_dynamic, which gives a whole embedding table one scale and takes
shapes and types from value_info that a fused graph no longer has.
"""

from __future__ import annotations

from collections.abc import Set

import onnx_ir as ir

from modelmill.steps.calibrate_quantize.products import Int8Graph, products

Quantized = tuple[ir.Value, ir.Value, ir.Value]
"""(uint8 values, scale, zero point)."""


def quantize_dynamic(
    model: ir.Model, *, embeddings: bool, reduce_range: bool, kept: Set[str] = frozenset()
) -> dict[str, int]:
    """Quantize a float32 graph in place.

    Args:
        model: The graph; products with constant matrices, fused attention and embedding tables become int8.
        embeddings: Whether tables do.
        reduce_range: Whether weights have seven bits.
        kept: Names of products that stay float32.

    Returns:
        Operator → how many were quantized.
    """
    graph = Int8Graph(model, reduce_range)
    activations: dict[int, Quantized] = {}
    for number, product in enumerate(products(model)):
        if str(number) in kept:
            continue
        if id(product.x) not in activations:
            activations[id(product.x)] = _quantized(model, product.x)
        x, scale, zero = activations[id(product.x)]
        if product.node.op_type == "Attention":
            graph.put(product, [graph.attention(product, x, scale, zero)])
            continue
        matrix, weight_scale = graph.weight(product)
        integers = ir.node("MatMulInteger", [x, matrix, zero])
        cast = ir.node("Cast", integers.outputs, attributes={"to": ir.DataType.FLOAT})
        scales = ir.node("Mul", [scale, weight_scale])
        result = ir.node("Mul", [cast.outputs[0], scales.outputs[0]])
        graph.put(product, [integers, cast, scales, result])
    if embeddings:
        graph.tables()
    return dict(sorted(graph.counts.items()))


def _quantized(model: ir.Model, value: ir.Value) -> Quantized:
    """A value quantized once for all who read it."""
    node = ir.node("DynamicQuantizeLinear", [value], num_outputs=3)
    place = value.producer()
    if place is None:
        model.graph.insert_before(model.graph[0], node)
    else:
        model.graph.insert_after(place, node)
    values, scale, zero = node.outputs
    return values, scale, zero
