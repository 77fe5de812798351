"""Finding operators in a graph and putting others in their place."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

CONTRIB = "com.microsoft"
"""ONNX Runtime's own operators: docs/ContribOperators.md in its repository."""


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of a value that does not change from run to run, or None."""
    tensor = value.const_value if value is not None else None
    return None if tensor is None else tensor.numpy()


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that gives ``value``, if it is an ``op_type`` of ONNX's own domain."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and node.domain in ("", "ai.onnx") else None


def only_user(value: ir.Value, op_type: str) -> ir.Node | None:
    """The one node that reads ``value``, if it is an ``op_type`` and ``value`` is no output of the graph."""
    users = [use.node for use in value.uses()]
    return users[0] if len(users) == 1 and users[0].op_type == op_type and not value.is_graph_output() else None


def biased(value: ir.Value) -> tuple[ir.Value, ir.Value | None]:
    """(x, bias) where ``value`` is ``x + bias`` with a constant bias of one dimension, else (value, None)."""
    added = producer(value, "Add")
    if added is None:
        return value, None
    for index in (0, 1):
        inner, other = added.inputs[index], added.inputs[1 - index]
        array = constant(other)
        if inner is not None and array is not None and array.ndim == 1 and constant(inner) is None:
            return inner, other
    return value, None


def add_initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """A new constant of the graph."""
    tensor = ir.tensor(np.asarray(array, order="C"), name=name)
    value = ir.Value(name=name, const_value=tensor)
    value.dtype, value.shape = tensor.dtype, ir.Shape(array.shape)
    model.graph.register_initializer(value)
    return value


def replace(model: ir.Model, old: ir.Value, nodes: list[ir.Node], new: ir.Value) -> None:
    """Insert ``nodes`` where ``old`` is made and let its readers read ``new``; an output keeps its name and shape."""
    place = old.producer()
    if place is None:
        what = f"{old.name} is given, not made: it cannot be replaced"
        raise ValueError(what)
    model.graph.insert_before(place, nodes)
    if old.is_graph_output():
        new.shape, new.type = old.shape, old.type
        new.name, old.name = old.name, f"{old.name}.replaced"
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def use_contrib(model: ir.Model) -> None:
    """Import the domain of ONNX Runtime's own operators."""
    model.graph.opset_imports[CONTRIB] = 1
