"""Attention masks, recognised by what they compute.

Exporters write a padding mask as ten or more operators that change with every release. A subgraph that turns random
0/1 masks of several shapes into the additive padding mask, to the last bit, is one, however it is written.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

_SHAPES = ((1, 1), (2, 3), (3, 7), (2, 16))
_HIDDEN = -1e4
"""An added number up to this makes a float32 softmax weight exactly 0 beside any key that is not hidden."""


def padding_mask_of(model: ir.Model, additive: ir.Value) -> ir.Value | None:
    """The graph input that ``additive`` is the padding mask of, or None.

    Args:
        model: The graph.
        additive: What is added to attention scores: float32, shape (batch, 1, queries, keys) or broadcast to it.

    Returns:
        An input of shape (batch, sequence) whose zeros, and nothing else, hide keys from every query.
    """
    inputs = _inputs_behind(additive)
    values = [value for value in inputs if value.dtype == ir.DataType.INT64 and len(value.shape or ()) == 2]
    if len(values) != len(inputs):
        return None
    session = _session_of(model, values, additive)
    for candidate in values:
        if all(_hides_padding(session, values, candidate, shape) for shape in _SHAPES):
            return candidate
    return None


def _inputs_behind(value: ir.Value) -> list[ir.Value]:
    found: dict[str, ir.Value] = {}
    waiting, seen = [value], {id(value)}
    while waiting:
        at = waiting.pop()
        producer = at.producer()
        if producer is None:
            if at.is_graph_input():
                found[at.name or ""] = at
            continue
        for item in producer.inputs:
            if item is not None and id(item) not in seen:
                seen.add(id(item))
                waiting.append(item)
    return [found[name] for name in sorted(found)]


def _session_of(model: ir.Model, inputs: list[ir.Value], output: ir.Value) -> ort.InferenceSession:
    graph = ir.convenience.extract(model.graph, inputs, [output])
    graph.outputs[0].dtype = ir.DataType.FLOAT
    small = ir.Model(graph, ir_version=model.ir_version)
    graph.opset_imports.update(model.opset_imports)
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return ort.InferenceSession(ir.to_proto(small).SerializeToString(), options, providers=["CPUExecutionProvider"])


def _hides_padding(
    session: ort.InferenceSession, values: list[ir.Value], candidate: ir.Value, shape: tuple[int, int]
) -> bool:
    draw = np.random.default_rng(shape[0] * 1000 + shape[1])
    mask = draw.integers(0, 2, size=shape)
    mask[:, 0] = 1
    # The other inputs are random too: a mask that depends on them is no padding mask.
    feeds = {value.name: draw.integers(0, 2, size=shape) for value in values} | {candidate.name: mask}
    found = session.run(None, feeds)[0]
    wanted = (shape[0], 1, shape[1], shape[1])
    if found.ndim != 4 or any(have not in (1, want) for have, want in zip(found.shape, wanted, strict=True)):
        return False
    added = np.broadcast_to(found, wanted)
    kept = np.broadcast_to(mask[:, None, None, :] == 1, wanted)
    return bool((added[kept] == 0).all() and (added[~kept] <= _HIDDEN).all())
