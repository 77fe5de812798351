"""GELU by its tanh approximation."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from modelmill.graphs.files import opset_of
from modelmill.graphs.matching import constant, only_user, replace

_OPSET = 20
"""The first whose default domain has Gelu."""


def approximate_gelu(model: ir.Model) -> int:
    """Let every exact GELU of a graph be computed by tanh, in place, however the exporter wrote it.

    Source: arXiv:1606.08415, section 2: 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))).

    Returns:
        How many were changed.
    """
    count = 0
    for node in list(model.graph):
        if node.op_type == "Gelu" and node.attributes.get_string("approximate", "none") == "none":
            node.attributes["approximate"] = ir.AttrString("approximate", "tanh")
            count += 1
        elif node.op_type == "Erf" and opset_of(model) >= _OPSET:
            found = _written_out(node)
            if found is not None:
                x, output = found
                gelu = ir.node("Gelu", [x], attributes={"approximate": "tanh"})
                replace(model, output, [gelu], gelu.outputs[0])
                count += 1
    return count


def _written_out(erf: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """(x, result) of 0.5 x (1 + erf(x / √2)), its factors in any order."""
    scaled = erf.inputs[0].producer() if erf.inputs[0] is not None else None
    added = only_user(erf.outputs[0], "Add")
    if scaled is None or scaled.op_type not in ("Div", "Mul") or added is None:
        return None
    x, number = _times(scaled)
    if x is None or not _is(number, math.sqrt(2) if scaled.op_type == "Div" else math.sqrt(0.5)):
        return None
    one = _times(added)[1]
    at, factor, seen = added.outputs[0], 1.0, False
    # The product of x, 0.5 and the sum: two multiplications, of which the first may be x * 0.5.
    for _ in range(2):
        product = only_user(at, "Mul")
        if product is None:
            return None
        other = next(value for value in product.inputs if value is not at)
        share, inner = _share_of(other, x)
        factor, seen, at = factor * share, seen or inner, product.outputs[0]
        if seen and _is(np.asarray(factor), 0.5):
            return (x, at) if _is(one, 1.0) else None
    return None


def _share_of(value: ir.Value | None, x: ir.Value) -> tuple[float, bool]:
    """(constant factor, whether x is a factor) of a value; NaN where it is something else."""
    if value is x:
        return 1.0, True
    array = constant(value)
    if array is not None and array.size == 1:
        return float(array.reshape(())), False
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Mul":
        inner, number = _times(node)
        if inner is x and number is not None and number.size == 1:
            return float(number.reshape(())), True
    return math.nan, False


def _times(node: ir.Node) -> tuple[ir.Value | None, np.ndarray | None]:
    """(what varies, the constant) of an operator of two inputs."""
    for index in (1, 0):
        array = constant(node.inputs[index])
        if array is not None:
            return node.inputs[1 - index], array
    return None, None


def _is(number: np.ndarray | None, wanted: float) -> bool:
    return number is not None and number.size == 1 and math.isclose(float(number.reshape(())), wanted, rel_tol=1e-5)
