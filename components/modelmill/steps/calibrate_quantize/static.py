"""Static int8: weights and the ranges of activations ahead of time, as pairs of QuantizeLinear and DequantizeLinear.

Source of the form: ONNX Runtime's QDQ format, which other runtimes read too. Fused attention has no such form; it
becomes QAttention with the calibrated scale.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from modelmill.graphs.matching import add_initializer
from modelmill.steps.calibrate_quantize.products import Int8Graph, Product, products

Range = tuple[float, float]


def observed(model: ir.Model) -> list[ir.Value]:
    """The activations whose ranges are needed, each once, in the graph's order."""
    return list({id(product.x): product.x for product in products(model)}.values())


def quantize_static(
    model: ir.Model, ranges: Mapping[str, Range], *, embeddings: bool, reduce_range: bool
) -> dict[str, int]:
    """Quantize a float32 graph in place.

    Args:
        model: The graph; products with constant matrices, fused attention and embedding tables become int8.
        ranges: Value name → (smallest, largest) seen in calibration, for every value of `observed`.
        embeddings: Whether tables do.
        reduce_range: Whether weights have seven bits.

    Returns:
        Operator → how many were quantized.
    """
    graph = Int8Graph(model, reduce_range)
    scales: dict[int, tuple[ir.Value, ir.Value]] = {}
    for product in products(model):
        if id(product.x) not in scales:
            scale, zero = scale_of(ranges[product.activation])
            name = graph.name()
            scales[id(product.x)] = (
                add_initializer(model, f"{name}.scale", np.asarray(scale, dtype=np.float32)),
                add_initializer(model, f"{name}.zero", np.asarray(zero, dtype=np.uint8)),
            )
        graph.put(product, _nodes(graph, product, *scales[id(product.x)]))
    if embeddings:
        graph.tables()
    return dict(sorted(graph.counts.items()))


def scale_of(extremes: Range) -> tuple[float, int]:
    """Scale and zero point of uint8 for a range.

    Args:
        extremes: (smallest, largest). The range is widened to hold 0, which padding and ReLU need exactly, and
            outward to 8 bits of mantissa, so that the last bits of another machine's kernels do not reach the bytes.

    Source: arXiv:1712.05877, section 3, eq. 1: value = scale * (integer - zero point).
    """
    smallest, largest = _outward(min(extremes[0], 0.0)), _outward(max(extremes[1], 0.0))
    scale = (largest - smallest) / 255.0 or 1.0
    return scale, int(np.clip(np.rint(-smallest / scale), 0, 255))


def _outward(number: float) -> float:
    mantissa, exponent = np.frexp(number)
    return float(np.ldexp(np.copysign(np.ceil(abs(mantissa) * 256) / 256, mantissa), exponent))


def _nodes(graph: Int8Graph, product: Product, scale: ir.Value, zero: ir.Value) -> list[ir.Node]:
    quantize = ir.node("QuantizeLinear", [product.x, scale, zero])
    if product.node.op_type == "Attention":
        return [quantize, graph.attention(product, quantize.outputs[0], scale, zero)]
    matrix, weight_scale = graph.weight(product.weight)
    zeros = add_initializer(graph.model, f"{matrix.name}.zero", np.zeros(product.weight.shape[1], dtype=np.int8))
    x = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero])
    weight = ir.node("DequantizeLinear", [matrix, weight_scale, zeros], attributes={"axis": 1})
    return [quantize, x, weight, ir.node("MatMul", [x.outputs[0], weight.outputs[0]])]
