"""Static int8 laid out for TensorRT: pairs of QuantizeLinear and DequantizeLinear where its fusions look for them.

Source: docs.nvidia.com, TensorRT, "Working with Quantized Types": quantization is symmetric, so that each zero point is
0 and each type int8. "Explicit Quantization": scales are constants; weights may be int8 already, with DequantizeLinear
between them and the product ("Quantized Weights"); activations have one scale, weights one for each output channel. Its
section "Q/DQ Layer-Placement Recommendations": quantize all inputs of products, not their outputs, and the residual
input of a sum that follows a product, which is computed with the product where both are int8. onnx-tensorrt,
docs/operators.md: no uint8, no QLinearMatMul, no MatMulInteger, no DynamicQuantizeLinear; none of ONNX Runtime's own
operators. Embedding tables are gathered, and TensorRT gathers no quantized weights: they stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelmill.core.errors import ModelError
from modelmill.graphs.matching import add_initializer, biased, constant, producer
from modelmill.steps.calibrate_quantize.histograms import Range, outward
from modelmill.steps.calibrate_quantize.operands import pairs_of
from modelmill.steps.calibrate_quantize.products import Product, products

_LEVELS = 127
_LEAST_SCALE = 2.0**-17
"""Below it fp16 has no eight bits of a number left; scales are the same numbers in float32, fp16 and bf16."""
_SHARE: Range = (0.0, 1.0)


@dataclass(frozen=True)
class _Input:
    """An input that becomes int8: of a product, or of a sum with a residual."""

    node: ir.Node
    index: int

    @property
    def value(self) -> ir.Value:
        value = self.node.inputs[self.index]
        if value is None:
            what = f"{self.node.op_type} {self.node.name} lacks the input {self.index}"
            raise ValueError(what)
        return value


def observed_for_tensorrt(model: ir.Model, *, residuals: bool, kept: Set[str]) -> list[ir.Value]:
    """The activations whose ranges are needed, each once, in the graph's order."""
    found = _inputs(model, residuals=residuals, kept=kept)
    return list({id(item.value): item.value for item in found if producer(item.value, "Softmax") is None}.values())


def quantize_for_tensorrt(
    model: ir.Model, ranges: Mapping[str, Range], *, residuals: bool, kept: Set[str] = frozenset()
) -> dict[str, int]:
    """Quantize a float32 graph of ONNX's own operators in place.

    Args:
        model: The graph.
        ranges: Value name → (smallest, largest) by calibration, for every value of `observed_for_tensorrt`.
        residuals: Whether a sum that follows a product reads its other side as int8, too.
        kept: Names of products that stay as they are, as `modelmill.steps.calibrate_quantize.operands.names_of` gives
            them.

    Returns:
        Operator → how many were quantized; products of two activations as ``Pair``, sums as ``Residual``.

    Raises:
        ModelError: A weight is not finite.
    """
    weighted = _weighted(model, kept)
    pairs, sums = _pairs(model, kept), _residuals(weighted) if residuals else []
    given: dict[int, ir.Value] = {}
    for item in _inputs(model, residuals=residuals, kept=kept):
        value = item.value
        if id(value) not in given:
            extremes = _SHARE if producer(value, "Softmax") is not None else ranges[value.name or ""]
            given[id(value)] = _round_trip(model, value, extremes, len(given))
        item.node.replace_input_with(item.index, given[id(value)])
    matrices: dict[int, ir.Value] = {}
    for product in weighted:
        _quantize_weight(model, product, matrices)
    counts: dict[str, int] = {}
    for product in weighted:
        counts[product.node.op_type] = counts.get(product.node.op_type, 0) + 1
    counts |= {name: len(found) for name, found in (("Pair", pairs), ("Residual", sums)) if found}
    return dict(sorted(counts.items()))


def scale_of(extremes: Range) -> float:
    """The scale of a range around zero: 8 bits of mantissa, not smaller than the range needs.

    Source: arXiv:1712.05877, eq. 1 with zero point 0.
    """
    return max(outward(max(-extremes[0], extremes[1], 0.0) / _LEVELS), _LEAST_SCALE)


def _inputs(model: ir.Model, *, residuals: bool, kept: Set[str]) -> list[_Input]:
    weighted = _weighted(model, kept)
    found = [_Input(product.node, 0) for product in weighted]
    found += [_Input(node, index) for node in _pairs(model, kept) for index in (0, 1)]
    return found + (_residuals(weighted) if residuals else [])


def _weighted(model: ir.Model, kept: Set[str]) -> list[Product]:
    return [product for number, product in enumerate(products(model)) if str(number) not in kept]


def _pairs(model: ir.Model, kept: Set[str]) -> list[ir.Node]:
    return [node for number, node in enumerate(pairs_of(model)) if f"pair{number}" not in kept]


def _residuals(weighted: Sequence[Product]) -> list[_Input]:
    """The other side of each sum that reads a quantized product, its bias added or not."""
    nodes = {id(product.node) for product in weighted}
    found = []
    for product in weighted:
        for use in product.node.outputs[0].uses():
            sums = [use.node]
            if use.node.op_type == "Add" and biased(use.node.outputs[0])[1] is not None:
                sums = [after.node for after in use.node.outputs[0].uses()]
            for node in sums:
                if node.op_type != "Add":
                    continue
                for index in (0, 1):
                    side = node.inputs[index]
                    inner = None if side is None else biased(side)[0].producer()
                    other = None if inner is not None and id(inner) in nodes else side
                    if other is not None and constant(other) is None:
                        found.append(_Input(node, index))
    return found


def _round_trip(model: ir.Model, value: ir.Value, extremes: Range, number: int) -> ir.Value:
    """``value`` through int8 and back, made right after it."""
    name = f"int8_{number}"
    scale = add_initializer(model, f"{name}.scale", np.asarray(scale_of(extremes), np.float32))
    zero = add_initializer(model, f"{name}.zero", np.asarray(0, np.int8))
    quantize = ir.node("QuantizeLinear", [value, scale, zero])
    back = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero])
    place = value.producer()
    if place is None:
        model.graph.insert_before(model.graph[0], [quantize, back])
    else:
        model.graph.insert_after(place, [quantize, back])
    return back.outputs[0]


def _quantize_weight(model: ir.Model, product: Product, matrices: dict[int, ir.Value]) -> None:
    """Let a product read int8 weights; layers that share a matrix share it still."""
    weight = product.node.inputs[1]
    stored = constant(weight)
    if weight is None or stored is None:
        return
    if id(weight) not in matrices:
        # products() gives (in, out); a Gemm may hold it the other way round.
        axis = 1 - product.node.attributes.get_int("transB", 0)
        largest = np.abs(stored).max(axis=1 - axis)
        if not np.isfinite(largest).all():
            what = f"a matrix of shape {list(stored.shape)} holds weights that are not finite"
            raise ModelError(what, fix="take another checkpoint: such a model answers nonsense")
        scale = np.array([scale_of((0.0, float(number))) for number in largest], np.float32)
        spread = np.expand_dims(scale, 1 - axis)
        integers = np.clip(np.rint(stored / spread), -_LEVELS, _LEVELS).astype(np.int8)
        name = f"int8_{weight.name}"
        inputs = [
            add_initializer(model, f"{name}.weight", integers),
            add_initializer(model, f"{name}.scale", scale),
            add_initializer(model, f"{name}.zero", np.zeros(scale.shape, np.int8)),
        ]
        dequantize = ir.node("DequantizeLinear", inputs, attributes={"axis": axis})
        model.graph.insert_before(product.node, [dequantize])
        matrices[id(weight)] = dequantize.outputs[0]
    product.node.replace_input_with(1, matrices[id(weight)])
