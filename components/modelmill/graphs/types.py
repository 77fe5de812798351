"""The types of a graph's values, told from its operators: what `modelmill.graphs.files.save` strips is known again."""

from __future__ import annotations

import onnx_ir as ir

_BOOLEAN = frozenset({
    "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor",
})  # fmt: skip
_INDICES = frozenset({"ArgMax", "ArgMin", "NonZero", "Shape", "Size"})
_TYPED_BY = {"Where": 1, "OneHot": 2, "DequantizeLinear": 1, "If": None, "Loop": None, "Scan": None}
"""Operator → the input that its outputs have the type of, where that is not the first; None: they have their own."""


def element_types(model: ir.Model) -> dict[int, ir.DataType | None]:
    """The type of each value of the main graph, by ``id(value)``; None where it cannot be told.

    Types of intermediate values are not kept in the files, and shape inference knows no operator of ONNX Runtime's own.
    """
    found: dict[int, ir.DataType | None] = {id(value): value.dtype for value in model.graph.inputs}
    for value in model.graph.initializers.values():
        found[id(value)] = None if value.const_value is None else value.const_value.dtype
    for node in model.graph:
        for index, output in enumerate(node.outputs):
            found[id(output)] = _type_of(node, index, found)
    return found


def _type_of(node: ir.Node, index: int, found: dict[int, ir.DataType | None]) -> ir.DataType | None:
    if node.op_type in _BOOLEAN:
        return ir.DataType.BOOL
    if node.op_type in _INDICES or (node.op_type in {"TopK", "Unique"} and index > 0):
        return ir.DataType.INT64
    if node.op_type == "Cast":
        return ir.DataType(node.attributes["to"].as_int())
    if node.op_type == "QuantizeLinear":
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        return ir.DataType.UINT8 if zero is None else found.get(id(zero))
    if node.op_type in {"Constant", "ConstantOfShape"}:
        tensor = node.attributes.get("value")
        return ir.DataType.FLOAT if tensor is None else tensor.as_tensor().dtype
    at = _TYPED_BY.get(node.op_type, 0)
    typed = node.inputs[at] if at is not None and at < len(node.inputs) else None
    return None if typed is None else found.get(id(typed))
