"""Attention in two forms, one of them for batches without padding.

A single text, and every part of a divided batch, is as long as its longest row: nothing is padded, and to add a mask
of zeros to the scores is a tenth of ONNX Runtime's attention (figures in the optimize step's README). The graph sees
from the mask which form to take, so that one file serves both, with the same answers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from modelmill.graphs import files
from modelmill.graphs.matching import CONTRIB, add_initializer, replace

_MASK_AT = {"Attention": 3, "QAttention": 5}
"""Which input is the mask."""
_FULL = "attention.full"


def split_by_padding(model: ir.Model) -> int:
    """Let each fused attention with a mask of shape (batch, sequence) leave the mask out where it hides nothing.

    Returns:
        How many were split.
    """
    # A rewriter may have left what it replaced: split, that would hold on to its weights.
    passes.RemoveUnusedNodesPass()(model)
    found = [(node, mask) for node in model.graph if (mask := _mask_of(node)) is not None]
    conditions: dict[int, ir.Value] = {}
    for node, mask in found:
        if id(mask) not in conditions:
            conditions[id(mask)] = _hides_nothing(model, mask)
        branches = [
            ir.AttrGraph(name, _branch(node, masked=masked))
            for name, masked in (("then_branch", False), ("else_branch", True))
        ]
        either = ir.Node("", "If", [conditions[id(mask)]], attributes=branches)
        replace(model, node.outputs[0], [either], either.outputs[0])
        model.graph.remove(node, safe=True)
    return len(found)


def join_branches(model: ir.Model) -> int:
    """Undo `split_by_padding`, in place: rewriters look for one attention at one place.

    Returns:
        How many were joined.
    """
    count = 0
    for node in [node for node in model.graph if node.op_type == "If"]:
        masked = _only_node(node, "else_branch")
        plain = _only_node(node, "then_branch")
        if masked is None or plain is None or _mask_of(masked) is None or plain.op_type != masked.op_type:
            continue
        one = _copy(masked, list(masked.inputs))
        replace(model, node.outputs[0], [one], one.outputs[0])
        model.graph.remove(node, safe=True)
        for inner in (masked, plain):
            # What is gone uses no weight any more: rewriters ask who else does.
            for at in range(len(inner.inputs)):
                inner.replace_input_with(at, None)
        count += 1
    # What told the forms apart.
    passes.RemoveUnusedNodesPass()(model)
    return count


def load_joined(path: Path) -> ir.Model:
    """A graph whose attentions have one form each.

    Raises:
        ModelError: It is no ONNX file.
    """
    model = files.load(path)
    join_branches(model)
    return model


def _mask_of(node: ir.Node) -> ir.Value | None:
    place = _MASK_AT.get(node.op_type) if node.domain == CONTRIB else None
    return node.inputs[place] if place is not None and len(node.inputs) > place else None


def _hides_nothing(model: ir.Model, mask: ir.Value) -> ir.Value:
    """True where every element of the mask is 1, made right after the mask is."""
    one = add_initializer(model, f"{_FULL}.{mask.name}", np.asarray(1, np.int32))
    smallest = ir.node("ReduceMin", [mask], attributes={"keepdims": 0})
    equal = ir.node("Equal", [smallest.outputs[0], one])
    place = mask.producer()
    if place is None:
        model.graph.insert_before(model.graph[0], [smallest, equal])
    else:
        model.graph.insert_after(place, [smallest, equal])
    return equal.outputs[0]


def _branch(node: ir.Node, *, masked: bool) -> ir.Graph:
    inputs = [value if masked or at != _MASK_AT[node.op_type] else None for at, value in enumerate(node.inputs)]
    inner = _copy(node, inputs)
    name = "masked" if masked else "full"
    # A branch sees the names around it: its own must be none of them.
    inner.outputs[0].name = f"{node.outputs[0].name}.{name}"
    inner.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return ir.Graph([], inner.outputs, nodes=[inner], name=name)


def _copy(node: ir.Node, inputs: list[ir.Value | None]) -> ir.Node:
    return ir.Node(node.domain, node.op_type, inputs, attributes=list(node.attributes.values()))


def _only_node(node: ir.Node, branch: str) -> ir.Node | None:
    graph = node.attributes[branch].as_graph()
    return graph[0] if len(graph) == 1 else None
