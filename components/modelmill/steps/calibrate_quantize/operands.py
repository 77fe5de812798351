"""Where static quantization stands in a graph: at what feeds the products of weights, and those of two activations."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import onnx_ir as ir

from modelmill.graphs.matching import constant, only_user
from modelmill.steps.calibrate_quantize.products import products

_MOVES = ("Reshape", "Transpose")
"""What moves values without changing them: quantized before it, they are moved as bytes."""


@dataclass(frozen=True)
class Operand:
    """An input of a product.

    Attributes:
        source: The value to quantize: the input itself, or what it was before it was only moved.
        reader: Who reads the source on the way to the product.
        index: Which of its inputs.
        pair: Whether the product is of two activations; those are quantized around zero.
    """

    source: ir.Value
    reader: ir.Node
    index: int
    pair: bool

    @property
    def share(self) -> bool:
        """Whether the values are shares of one: a softmax's, whose range is known."""
        node = self.source.producer()
        return self.pair and node is not None and node.op_type == "Softmax"


def operands(model: ir.Model, *, pairs: bool, kept: Set[str] = frozenset()) -> list[Operand]:
    """All operands to quantize, in the graph's order.

    Args:
        model: A float32 graph.
        pairs: Whether products of two activations (attention's scores and contexts) are quantized, too.
        kept: Names, as `names_of` gives them, of products that stay float32.
    """
    found = [
        _operand(product.node, 0, pair=False)
        for number, product in enumerate(products(model))
        if str(number) not in kept
    ]
    if pairs:
        found += [
            _operand(node, index, pair=True)
            for number, node in enumerate(pairs_of(model))
            if f"pair{number}" not in kept
            for index in (0, 1)
        ]
    return found


def names_of(model: ir.Model, *, pairs: bool) -> list[str]:
    """What a choice may keep in float32: products by their number, products of two activations as ``pair<number>``."""
    numbers = [str(number) for number in range(len(products(model)))]
    return numbers + ([f"pair{number}" for number in range(len(pairs_of(model)))] if pairs else [])


def pairs_of(model: ir.Model) -> list[ir.Node]:
    """The products of two activations, in the graph's order."""
    return [
        node
        for node in model.graph
        if node.op_type == "MatMul" and all(value is not None and constant(value) is None for value in node.inputs)
    ]


def _operand(node: ir.Node, index: int, *, pair: bool) -> Operand:
    while True:
        value = node.inputs[index]
        if value is None:
            what = f"{node.op_type} {node.name} lacks the input {index}"
            raise ValueError(what)
        mover = value.producer()
        if mover is None or mover.op_type not in _MOVES or only_user(value, node.op_type) is None:
            return Operand(value, node, index, pair)
        node, index = mover, 0
