"""Static int8: weights and the ranges of activations ahead of time, as pairs of QuantizeLinear and DequantizeLinear.

Source of the form: ONNX Runtime's QDQ format, which other runtimes read too. Fused attention has no such form; it
becomes QAttention with the calibrated scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import onnx_ir as ir

from modelmill.graphs.matching import add_initializer
from modelmill.steps.calibrate_quantize.histograms import Range, outward
from modelmill.steps.calibrate_quantize.operands import Operand, operands, pairs_of
from modelmill.steps.calibrate_quantize.products import Int8Graph, products

_HALF = 128
"""Zero in uint8 where a range lies around zero: QAttention is slow, or not there, for int8 activations."""


def observed(model: ir.Model, *, pairs: bool, kept: Set[str]) -> list[ir.Value]:
    """The activations whose ranges are needed, each once, in the graph's order."""
    found = operands(model, pairs=pairs, kept=kept)
    return list({id(item.source): item.source for item in found if not item.share}.values())


def quantize_static(
    model: ir.Model,
    ranges: Mapping[str, Range],
    *,
    embeddings: bool,
    reduce_range: bool,
    symmetric: bool = False,
    pairs: bool = False,
    kept: Set[str] = frozenset(),
) -> dict[str, int]:
    """Quantize a float32 graph in place.

    Args:
        model: The graph; products with constant matrices, fused attention and embedding tables become int8.
        ranges: Value name → (smallest, largest) by calibration, for every value of `observed`.
        embeddings: Whether tables do.
        reduce_range: Whether weights have seven bits.
        symmetric: Whether the ranges of what meets weights lie around zero.
        pairs: Whether products of two activations become int8, too.
        kept: Names of products that stay float32.

    Returns:
        Operator → how many were quantized; products of two activations as ``Pair``.
    """
    graph = Int8Graph(model, reduce_range)
    matched = [product for number, product in enumerate(products(model)) if str(number) not in kept]
    found = operands(model, pairs=pairs, kept=kept)
    pairs_kept = sum(name.startswith("pair") for name in kept)
    pair_count = len(pairs_of(model)) - pairs_kept if pairs else 0
    quantized: dict[tuple[int, bool, bool], tuple[ir.Value, ir.Value, ir.Value, ir.Value]] = {}
    for operand in found:
        around_zero = (operand.pair and not operand.share) or (not operand.pair and symmetric)
        attends = operand.reader.op_type == "Attention"
        key = (id(operand.source), around_zero, attends)
        if key not in quantized:
            extremes = (0.0, 1.0) if operand.share else ranges[operand.source.name or ""]
            quantized[key] = _insert(graph, operand, extremes, around_zero, attends)
        if not attends:
            operand.reader.replace_input_with(operand.index, quantized[key][3])
    for product in matched:
        if product.node.op_type == "Attention":
            integers, scale, zero, _ = quantized[id(product.x), symmetric, True]
            graph.put(product, [graph.attention(product, integers, scale, zero)])
            continue
        matrix, weight_scale = graph.weight(product)
        zeros = add_initializer(model, f"{graph.name()}.zero", np.zeros(product.weight.shape[1], dtype=np.int8))
        weight = ir.node("DequantizeLinear", [matrix, weight_scale, zeros], attributes={"axis": 1})
        graph.put(product, [weight, ir.node("MatMul", [product.x, weight.outputs[0]])])
    if pair_count:
        graph.counts["Pair"] = pair_count
    if embeddings:
        graph.tables()
    return dict(sorted(graph.counts.items()))


def scale_of(extremes: Range, *, symmetric: bool = False) -> tuple[float, int]:
    """Scale and zero point for a range: of uint8, or of int8 where it lies around zero (the zero point is 0).

    Args:
        extremes: (smallest, largest). The range is widened to hold 0, which padding and ReLU need exactly, and
            outward to 8 bits of mantissa, so that the last bits of another machine's kernels do not reach the bytes.
        symmetric: Whether the range is made to lie around zero.

    Source: arXiv:1712.05877, section 3, eq. 1: value = scale * (integer - zero point).
    """
    smallest, largest = outward(min(extremes[0], 0.0)), outward(max(extremes[1], 0.0))
    if symmetric:
        return max(-smallest, largest) / 127.0 or 1.0, 0
    scale = (largest - smallest) / 255.0 or 1.0
    return scale, int(np.clip(np.rint(-smallest / scale), 0, 255))


def _insert(
    graph: Int8Graph, operand: Operand, extremes: Range, around_zero: bool, attends: bool
) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
    """(integers, scale, zero point, values of the integers) of an operand's source, made right after it."""
    scale, zero = scale_of(extremes, symmetric=around_zero)
    signed = around_zero and not attends
    point = np.asarray(zero, np.int8) if signed else np.asarray(_HALF if around_zero else zero, np.uint8)
    name = graph.name()
    scales = add_initializer(graph.model, f"{name}.scale", np.asarray(scale, dtype=np.float32))
    points = add_initializer(graph.model, f"{name}.zero", point)
    quantize = ir.node("QuantizeLinear", [operand.source, scales, points])
    values = ir.node("DequantizeLinear", [quantize.outputs[0], scales, points])
    place = operand.source.producer()
    nodes = [quantize] if attends else [quantize, values]
    if place is None:
        graph.model.graph.insert_before(graph.model.graph[0], nodes)
    else:
        graph.model.graph.insert_after(place, nodes)
    return quantize.outputs[0], scales, points, values.outputs[0]
