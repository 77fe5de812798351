"""Weights that several layers share, as all of ALBERT's layers do: stored once, and in the form that products read."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir

from modelmill.graphs.matching import add_initializer, constant


def share_matrices(model: ir.Model) -> None:
    """Let operators that compute with equal matrices read one constant, in place.

    PyTorch's exporter folds the transposition before a product into its weight: a small weight is copied for each of
    its readers, and a large one with several readers stays as it was, where no fusion finds it.
    """
    _fold_transpositions(model)
    kept: dict[tuple[object, ...], ir.Value] = {}
    for value in list(model.graph.initializers.values()):
        array = constant(value)
        if array is None or array.ndim < 2 or not np.issubdtype(array.dtype, np.floating) or value.is_graph_output():
            continue
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
        first = kept.setdefault((array.dtype, array.shape, digest), value)
        if first is not value:
            value.replace_all_uses_with(first)
            model.graph.initializers.pop(value.name or "")


def _fold_transpositions(model: ir.Model) -> None:
    for value in list(model.graph.initializers.values()):
        readers = [use.node for use in value.uses()]
        array = constant(value)
        orders = {tuple(node.attributes.get_ints("perm", [])) for node in readers if node.op_type == "Transpose"}
        # With other readers the weight would be stored in both forms.
        alike = len(orders) == 1 and all(node.op_type == "Transpose" for node in readers)
        if array is None or array.ndim != 2 or not alike or value.is_graph_output():
            continue
        (order,) = orders
        folded = add_initializer(model, f"{value.name}.transposed", array.transpose(order or None))
        for node in readers:
            node.outputs[0].replace_all_uses_with(folded)
            model.graph.remove(node, safe=True)
