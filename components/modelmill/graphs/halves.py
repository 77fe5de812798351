"""A float32 graph computed in fp16 or bf16, with islands that stay float32.

What a GPU multiplies in half the bytes it multiplies several times as fast. Some values do not fit: fp16 ends at 65504,
and sums of many terms lose in both. An island is an operator that reads and makes float32 as before, with a Cast where
it meets the rest. Inputs and outputs of the graph keep their types.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from modelmill.core.errors import ModelError
from modelmill.graphs.files import opset_of
from modelmill.graphs.types import element_types

FP16, BF16 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16
LIMITS = {FP16: 65504.0 / 4, BF16: float(np.finfo(np.float32).max) / 4}
"""The largest magnitude that is left to each: a quarter of its own, for rows that calibration did not see."""
LEAST = {FP16: 2.0**-14, BF16: float(np.finfo(np.float32).tiny)}
"""What is smaller everywhere has fewer bits than the format's own: fp16's smallest normal number is 2^-14."""
SUMS = frozenset({
    "LayerNormalization", "SkipLayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization",
    "InstanceNormalization", "GroupNormalization", "LpNormalization", "Softmax", "LogSoftmax", "CumSum", "Exp", "Log",
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Pow", "Sqrt", "Reciprocal",
})  # fmt: skip
"""What loses too much by its kind: sums of many terms, and what magnifies their error.

Source: docs.nvidia.com, Train With Mixed Precision, "Tensor Core Math": reductions and normalisations in float32.
"""
_CARRIES = frozenset({
    "Add", "Concat", "Div", "Expand", "Gather", "Identity", "Mul", "Neg", "Reshape", "Slice", "Squeeze", "Sub", "Tile",
    "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""What hands a constant on that is too large (a mask's lowest number): its outputs are as large."""
_OPSET_OF_HALF_QUANTIZERS = 19
"""The first whose QuantizeLinear takes fp16 and bf16."""


@dataclass(frozen=True)
class Halved:
    """What became of a graph.

    Attributes:
        halved: Operator → how many compute in the reduced type.
        islands: Operator → how many stay float32.
        casts: Operators put between the two.
    """

    halved: dict[str, int]
    islands: dict[str, int]
    casts: int


def float_values(model: ir.Model) -> list[ir.Value]:
    """The float32 values that operators of the main graph make, in their order."""
    types = element_types(model)
    return [
        value for node in model.graph for value in node.outputs if types[id(value)] is ir.DataType.FLOAT and value.name
    ]


def does_not_fit(smallest: float, largest: float, dtype: ir.DataType) -> bool:
    """Whether values seen between ``smallest`` and ``largest`` overflow, with a margin, or all lose bits."""
    limit, least = LIMITS[dtype], LEAST[dtype]
    if not (abs(smallest) <= limit and abs(largest) <= limit):
        return True
    return 0.0 < max(abs(smallest), abs(largest)) < least


def halve(model: ir.Model, dtype: ir.DataType, beyond: Set[str] = frozenset(), *, islands: bool = True) -> Halved:
    """Let a float32 graph compute in ``dtype``, in place.

    Args:
        model: The graph; operators with graphs of their own (If, Loop) stay float32 with all that is in them.
        dtype: `FP16` or `BF16`.
        beyond: Names of values that do not fit: what makes or reads them is an island.
        islands: Whether there are islands; without them only what has no such form stays float32.

    Raises:
        ModelError: The graph quantizes, and its opset has no quantizer of this type.
    """
    halving = _Halving(model, dtype, beyond if islands else frozenset(), islands)
    if opset_of(model) < _OPSET_OF_HALF_QUANTIZERS and any(node.op_type == "QuantizeLinear" for node in model.graph):
        what = f"int8 beside {dtype.name.lower()} needs opset {_OPSET_OF_HALF_QUANTIZERS}, and the graph has another"
        raise ModelError(what, fix="allow float32 for this target, or export with a newer opset")
    halving.run()
    passes.RemoveUnusedNodesPass()(model)
    return Halved(dict(sorted(halving.halved.items())), dict(sorted(halving.kept.items())), halving.casts)


@dataclass
class _Halving:
    model: ir.Model
    dtype: ir.DataType
    beyond: Set[str]
    islands: bool
    halved: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    casts: int = 0
    cast_of: dict[tuple[int, ir.DataType], ir.Value] = field(default_factory=dict)

    def run(self) -> None:
        graph = self.model.graph
        types = element_types(self.model)
        floats = {key for key, found in types.items() if found is ir.DataType.FLOAT}
        nodes = list(graph)
        large = self._large(nodes, floats)
        reduced = {id(node) for node in nodes if self._may(node, floats, large)}
        made_reduced = {
            id(value) for node in nodes if id(node) in reduced for value in node.outputs if id(value) in floats
        }
        for node in nodes:
            touches = any(value is not None and id(value) in floats for value in (*node.inputs, *node.outputs))
            if not touches:
                continue
            wants = id(node) in reduced
            counts = self.halved if wants else self.kept
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
            for index, value in enumerate(node.inputs):
                if value is None or id(value) not in floats:
                    continue
                if wants and id(value) not in made_reduced:
                    node.replace_input_with(index, self._as(value, self.dtype, node))
                elif not wants and id(value) in made_reduced:
                    node.replace_input_with(index, self._as(value, ir.DataType.FLOAT, node))
            if wants and node.op_type == "Cast":
                node.attributes["to"] = ir.AttrInt64("to", self.dtype.value)
        self._restore_elsewhere(made_reduced, {id(node) for node in nodes})

    def _large(self, nodes: list[ir.Node], floats: Set[int]) -> set[int]:
        """Values that do not fit: as calibrated, and what is made of constants that do not."""
        found = {
            id(value) for node in nodes for value in node.outputs if value.name in self.beyond and id(value) in floats
        }
        if not self.islands:
            return found
        huge = set()
        for value in self.model.graph.initializers.values():
            if id(value) in floats and value.const_value is not None and value.const_value.size:
                array = value.const_value.numpy()
                smallest, largest = float(array.min()), float(array.max())
                if does_not_fit(smallest, largest, self.dtype):
                    found.add(id(value))
                    huge |= {id(value)} if max(abs(smallest), abs(largest)) >= 1 else set()
        for node in nodes:
            read = {id(value) for value in node.inputs if value is not None}
            if node.op_type in _CARRIES and read & huge:
                huge |= {id(value) for value in node.outputs if id(value) in floats}
            source = node.inputs[0].producer() if node.op_type == "DequantizeLinear" and node.inputs[0] else None
            if source is not None and {id(value) for value in source.inputs if value is not None} & (found | huge):
                found.add(id(node.outputs[0]))
        return found | huge

    def _may(self, node: ir.Node, floats: Set[int], large: Set[int]) -> bool:
        values = [value for value in (*node.inputs, *node.outputs) if value is not None and id(value) in floats]
        if not values or any(item.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
                             for item in node.attributes.values()):  # fmt: skip
            return False
        reads = any(value is not None and id(value) in floats for value in node.inputs)
        if not reads and node.op_type != "Cast":
            # It makes float32 by an attribute.
            return False
        if self.islands and node.op_type in SUMS:
            return False
        return not any(id(value) in large for value in values)

    def _as(self, value: ir.Value, dtype: ir.DataType, reader: ir.Node) -> ir.Value:
        key = (id(value), dtype)
        if key in self.cast_of:
            return self.cast_of[key]
        if value.const_value is not None and value.producer() is None and not value.is_graph_input():
            made = self._constant(value)
        else:
            cast = ir.node("Cast", [value], attributes={"to": dtype})
            producer = value.producer()
            if producer is None:
                self.model.graph.insert_before(self.model.graph[0], [cast])
            else:
                self.model.graph.insert_after(producer, [cast])
            self.casts += 1
            made = cast.outputs[0]
        self.cast_of[key] = made
        return made

    def _constant(self, value: ir.Value) -> ir.Value:
        name = f"{value.name}.{self.dtype.name.lower()}"
        tensor = value.const_value
        array = np.asarray(tensor.numpy() if tensor is not None else 0.0)
        with np.errstate(over="ignore"):
            made = ir.Value(name=name, const_value=ir.tensor(array.astype(self.dtype.numpy()), name=name))
        made.dtype, made.shape = self.dtype, ir.Shape(array.shape)
        self.model.graph.register_initializer(made)
        return made

    def _restore_elsewhere(self, made_reduced: Set[int], top: Set[int]) -> None:
        """Give float32 back to the graph's outputs and to what inner graphs read."""
        for node in list(self.model.graph):
            for value in node.outputs:
                if id(value) not in made_reduced:
                    continue
                inner = [use for use in value.uses() if use.node.graph is not self.model.graph]
                for use in inner:
                    use.node.replace_input_with(use.idx, self._as(value, ir.DataType.FLOAT, use.node))
                if value.is_graph_output():
                    self._output(value)

    def _output(self, value: ir.Value) -> None:
        graph = self.model.graph
        back = self._as(value, ir.DataType.FLOAT, graph[-1])
        back.shape, back.type = value.shape, value.type
        name, value.name = value.name, f"{value.name}.{self.dtype.name.lower()}"
        back.name = name
        value.shape, value.type = None, None
        for index, output in enumerate(graph.outputs):
            if output is value:
                graph.outputs[index] = back


def simulate(model: ir.Model) -> None:
    """Turn a graph that `halve` made into a float32 one that rounds where it rounds, in place.

    ONNX Runtime's CPU provider has no kernels for bf16 and, for most operators, none for fp16: it refuses the former
    and computes the latter in float32 from end to end, so that what overflows on a GPU does not there (1.31; a product
    of 360,000 stays one). Here each value of a reduced type is cast to it and back, as QuantizeLinear and
    DequantizeLinear simulate int8; products are summed in float32, as tensor cores do it.
    """
    types = element_types(model)
    reduced = {key: found for key, found in types.items() if found in (FP16, BF16)}
    for value in list(model.graph.initializers.values()):
        if id(value) in reduced and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.dtype = ir.DataType.FLOAT
    for node in list(model.graph):
        if node.op_type == "Cast" and id(node.outputs[0]) in reduced:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT.value)
        for value in node.outputs:
            dtype = reduced.get(id(value))
            if dtype is None:
                continue
            there = ir.node("Cast", [value], attributes={"to": dtype})
            back = ir.node("Cast", there.outputs, attributes={"to": ir.DataType.FLOAT})
            readers = [(use.node, use.idx) for use in value.uses() if use.node is not there]
            model.graph.insert_after(node, [there, back])
            for reader, index in readers:
                reader.replace_input_with(index, back.outputs[0])
