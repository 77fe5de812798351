"""What a graph computes with, attention in two forms counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx


def operators(graph: onnx.GraphProto) -> Counter[str]:
    """Operator → how many: of an If those of its else branch, which serves every input."""
    found: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type == "If":
            found += operators(next(item.g for item in node.attribute if item.name == "else_branch"))
        else:
            found[node.op_type] += 1
    return found


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of all branches in it."""
    for node in graph.node:
        yield node
        for item in node.attribute:
            if item.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(item.g)
