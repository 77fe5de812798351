"""The products of a graph that can be computed in int8."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelmill.graphs.matching import CONTRIB, add_initializer, constant, replace, use_contrib
from modelmill.steps.calibrate_quantize.weights import FULL_RANGE, REDUCED_RANGE, quantize_columns, quantize_rows

MIN_TABLE_VALUES = 4096
"""Tables below 16 KiB stay float32: they would cost more operators than bytes (BERT's two segments)."""


@dataclass(frozen=True)
class Product:
    """An activation times a constant matrix.

    Attributes:
        node: ``MatMul``, ``Gemm`` or ``Attention``.
        activation: The activation's name in the float32 graph.
        weight: float32, shape (in_features, out_channels).
        bias: What is added by the node itself, shape (out_channels,).
    """

    node: ir.Node
    activation: str
    weight: np.ndarray
    bias: ir.Value | None

    @property
    def x(self) -> ir.Value:
        """The activation as it is now: products before this one may have been replaced."""
        x = self.node.inputs[0]
        if x is None:
            what = f"{self.node.op_type} {self.node.name} has no first input"
            raise ValueError(what)
        return x


def products(model: ir.Model) -> list[Product]:
    """All products of activations with constant float32 matrices, in the graph's order."""
    found = (_READ[node.op_type](node) for node in model.graph if node.op_type in _READ)
    return [product for product in found if product is not None]


def _matmul(node: ir.Node) -> Product | None:
    return _product(node, constant(node.inputs[1]), None)


def _gemm(node: ir.Node) -> Product | None:
    weight = constant(node.inputs[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    factors = {node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)}
    if weight is None or factors != {1.0} or _is_set(node, "transA"):
        return None
    return _product(node, weight.T if _is_set(node, "transB") else weight, bias)


def _is_set(node: ir.Node, name: str) -> bool:
    return node.attributes[name].as_int() != 0 if name in node.attributes else False


def _attention(node: ir.Node) -> Product | None:
    # QAttention has no additional scores and, beside the mask, no more inputs that Attention could have.
    if node.domain != CONTRIB or any(value is not None for value in node.inputs[4:]):
        return None
    return _product(node, constant(node.inputs[1]), node.inputs[2])


def _product(node: ir.Node, weight: np.ndarray | None, bias: ir.Value | None) -> Product | None:
    x = node.inputs[0]
    if x is None or constant(x) is not None or weight is None or weight.ndim != 2 or weight.dtype != np.float32:
        return None
    return Product(node, x.name or "", weight, bias)


_READ = {"MatMul": _matmul, "Gemm": _gemm, "Attention": _attention}


@dataclass
class Int8Graph:
    """A graph on its way to int8.

    Attributes:
        model: Changed in place.
        reduce_range: Whether weights have seven bits.
        counts: Operator → how many were quantized.
        made: Names given so far.
        weights: Matrix and operator → its int8 form.
    """

    model: ir.Model
    reduce_range: bool
    counts: dict[str, int] = field(default_factory=dict)
    made: int = 0
    weights: dict[tuple[int, str], tuple[ir.Value, ir.Value]] = field(default_factory=dict)

    def name(self) -> str:
        """A name for a new constant; the same graph gives the same names."""
        self.made += 1
        return f"int8_{self.made}"

    def count(self, op_type: str) -> None:
        """Count one operator as quantized."""
        self.counts[op_type] = self.counts.get(op_type, 0) + 1

    def weight(self, product: Product) -> tuple[ir.Value, ir.Value]:
        """(int8 matrix, scale of each column) as constants; layers that share a matrix share them, too."""
        key = (id(product.node.inputs[1]), product.node.op_type)
        if key not in self.weights:
            integers, scale = quantize_columns(product.weight, REDUCED_RANGE if self.reduce_range else FULL_RANGE)
            name = self.name()
            matrix = add_initializer(self.model, f"{name}.weight", integers)
            self.weights[key] = matrix, add_initializer(self.model, f"{name}.scale", scale)
        return self.weights[key]

    def put(self, product: Product, nodes: list[ir.Node]) -> None:
        """Put ``nodes`` in the product's place; its bias, if it has one of its own, is added after them."""
        if product.bias is not None and nodes[-1].op_type != "QAttention":
            nodes = [*nodes, ir.node("Add", [nodes[-1].outputs[0], product.bias])]
        replace(self.model, product.node.outputs[0], nodes, nodes[-1].outputs[0])
        self.count(product.node.op_type)

    def attention(self, product: Product, x: ir.Value, scale: ir.Value, zero: ir.Value) -> ir.Node:
        """Attention over quantized x (com.microsoft.QAttention)."""
        matrix, weight_scale = self.weight(product)
        mask = product.node.inputs[3] if len(product.node.inputs) > 3 else None
        inputs = [x, matrix, product.bias, scale, weight_scale, mask, zero]
        taken = ("num_heads", "scale", "mask_filter_value", "unidirectional")
        attributes = {name: item for name, item in product.node.attributes.items() if name in taken}
        use_contrib(self.model)
        return ir.Node(CONTRIB, "QAttention", inputs, attributes=attributes.values())

    def tables(self) -> None:
        """Quantize embedding tables, a scale for each row: rows are gathered as int8 and scaled."""
        for node in [node for node in self.model.graph if node.op_type == "Gather"]:
            table, indices = constant(node.inputs[0]), node.inputs[1]
            if table is None or table.ndim != 2 or table.dtype != np.float32 or table.size < MIN_TABLE_VALUES:
                continue
            if node.attributes.get_int("axis", 0) != 0:
                continue
            integers, scales = quantize_rows(table)
            name = self.name()
            rows = ir.node("Gather", [add_initializer(self.model, f"{name}.table", integers), indices])
            factors = ir.node("Gather", [add_initializer(self.model, f"{name}.scale", scales), indices])
            cast = ir.node("Cast", rows.outputs, attributes={"to": ir.DataType.FLOAT})
            result = ir.node("Mul", [cast.outputs[0], factors.outputs[0]])
            replace(self.model, node.outputs[0], [rows, factors, cast, result], result.outputs[0])
            self.count("Gather")
