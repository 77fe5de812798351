"""Multi-head self-attention as one operator of ONNX Runtime.

Source: the operator ``com.microsoft.Attention`` of onnxruntime's docs/ContribOperators.md. Its own fusion
(onnxruntime.transformers) and onnxscript's look for what older exporters wrote and find nothing in the graphs of
torch.export; this one starts at each softmax and follows data, not operator names of one release.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelmill.graphs.masks import padding_mask_of
from modelmill.graphs.matching import (
    CONTRIB,
    add_initializer,
    biased,
    constant,
    only_user,
    producer,
    replace,
    use_contrib,
)

_HIDDEN = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class _Projection:
    """``Reshape(x @ weight + bias)`` into heads; a missing bias is zeros."""

    x: ir.Value
    weight: ir.Value
    bias: ir.Value | None
    head_size: int

    @property
    def matrix(self) -> np.ndarray:
        """Shape (in_features, out_channels)."""
        return _array(self.weight)

    @property
    def summand(self) -> np.ndarray:
        """Shape (out_channels,)."""
        matrix = self.matrix
        return np.zeros(matrix.shape[1], dtype=matrix.dtype) if self.bias is None else _array(self.bias)


@dataclass(frozen=True)
class _Attention:
    query: _Projection
    key: _Projection
    value: _Projection
    scale: float
    mask: ir.Value | None
    output: ir.Value

    @property
    def parts(self) -> tuple[_Projection, _Projection, _Projection]:
        """In the order in which the fused matrix holds them."""
        return self.query, self.key, self.value


def fuse_attention(model: ir.Model) -> int:
    """Replace self-attention whose only mask is padding by ``Attention``, in place.

    Attention with another mask (causal, relative positions) or of two sources stays as it is.

    Returns:
        How many were replaced.
    """
    softmaxes = [node for node in model.graph if node.op_type == "Softmax"]
    # Looked up before anything is replaced: masks are recognised by running what computes them.
    matches = [match for node in softmaxes if (match := _match(node)) is not None]
    padding = {id(match.mask): padding_mask_of(model, match.mask) for match in matches if match.mask is not None}
    raw: dict[int, ir.Value] = {}
    shared: dict[tuple[int, ...], tuple[ir.Value, ir.Value]] = {}
    count = 0
    for match in matches:
        mask = None
        if match.mask is not None:
            source = padding[id(match.mask)]
            if source is None:
                continue
            if id(source) not in raw:
                raw[id(source)] = _as_int32(model, source)
            mask = raw[id(source)]
        # Layers that share their matrices, as all of ALBERT's do, share what is made of them.
        key = tuple(id(value) for part in match.parts for value in (part.weight, part.bias))
        if key not in shared:
            shared[key] = _weights(model, match, len(shared))
        _replace(model, match, mask, *shared[key])
        count += 1
    if count:
        use_contrib(model)
    return count


def _match(softmax: ir.Node) -> _Attention | None:
    scores = softmax.inputs[0]
    if scores is None or softmax.attributes.get_int("axis", -1) not in (-1, 3):
        return None
    scores, mask = _without_mask(scores)
    scores, scale = _without_scale(scores)
    product = producer(scores, "MatMul")
    context = only_user(softmax.outputs[0], "MatMul")
    if product is None or context is None or context.inputs[0] is not softmax.outputs[0]:
        return None
    transposed = only_user(context.outputs[0], "Transpose")
    if transposed is None or _perm(transposed) != [0, 2, 1, 3]:
        return None
    merged = only_user(transposed.outputs[0], "Reshape")
    query, query_scale = _projection(product.inputs[0], [0, 2, 1, 3])
    key, key_scale = _projection(product.inputs[1], [0, 2, 3, 1])
    value, value_scale = _projection(context.inputs[1], [0, 2, 1, 3])
    if query is None or key is None or value is None or merged is None or value_scale != 1.0:
        return None
    alike = query.x is key.x is value.x and query.head_size == key.head_size == value.head_size
    if not alike or not query.matrix.shape == key.matrix.shape == value.matrix.shape:
        return None
    return _Attention(query, key, value, scale * query_scale * key_scale, mask, merged.outputs[0])


def _without_mask(scores: ir.Value) -> tuple[ir.Value, ir.Value | None]:
    added = producer(scores, "Add")
    if added is None:
        return scores, None
    for index in (0, 1):
        inner = added.inputs[index]
        if inner is not None and producer(_without_scale(inner)[0], "MatMul") is not None:
            return inner, added.inputs[1 - index]
    return scores, None


def _without_scale(value: ir.Value) -> tuple[ir.Value, float]:
    for op_type in ("Mul", "Div"):
        node = producer(value, op_type)
        if node is None:
            continue
        for index in (1, 0) if op_type == "Mul" else (1,):
            array = constant(node.inputs[index])
            inner = node.inputs[1 - index]
            if array is not None and array.size == 1 and inner is not None:
                number = float(array.reshape(()))
                return inner, number if op_type == "Mul" else 1.0 / number
    return value, 1.0


def _projection(value: ir.Value | None, perm: list[int]) -> tuple[_Projection | None, float]:
    if value is None:
        return None, 1.0
    value, scale = _without_scale(value)
    transpose = producer(value, "Transpose")
    reshape = producer(transpose.inputs[0], "Reshape") if transpose is not None else None
    if transpose is None or reshape is None or _perm(transpose) != perm:
        return None, 1.0
    if reshape.inputs[0] is None:
        return None, 1.0
    inner, inner_scale = _without_scale(reshape.inputs[0])
    head_size = _last_size(reshape.inputs[1])
    linear = _linear(inner)
    if head_size is None or linear is None or _array(linear[1]).shape[1] % head_size:
        return None, 1.0
    return _Projection(*linear, head_size), scale * inner_scale


def _linear(value: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value | None] | None:
    """(x, weight, bias) of ``x @ weight + bias``."""
    inner, bias = biased(value)
    product = producer(inner, "MatMul")
    if product is None:
        return None
    x, weight = product.inputs[:2]
    array = constant(weight)
    if x is None or weight is None or array is None or array.ndim != 2:
        return None
    return x, weight, bias


def _array(value: ir.Value) -> np.ndarray:
    array = constant(value)
    if array is None:
        what = f"{value.name} is no constant"
        raise ValueError(what)
    return array


def _last_size(shape: ir.Value | None) -> int | None:
    """The last number of a 4-dimensional shape, constant or put together by Concat."""
    array = constant(shape)
    if array is not None:
        return int(array[-1]) if array.size == 4 and array[-1] > 0 else None
    concat = producer(shape, "Concat")
    last = constant(concat.inputs[-1]) if concat is not None and len(concat.inputs) == 4 else None
    return int(last[-1]) if last is not None and last.size == 1 and last[-1] > 0 else None


def _weights(model: ir.Model, match: _Attention, index: int) -> tuple[ir.Value, ir.Value]:
    """The fused matrix and bias of an attention."""
    weight = np.concatenate([part.matrix for part in match.parts], axis=1)
    bias = np.concatenate([part.summand for part in match.parts])
    name = f"attention_{index}"
    return add_initializer(model, f"{name}.weight", weight), add_initializer(model, f"{name}.bias", bias)


def _replace(model: ir.Model, match: _Attention, mask: ir.Value | None, weight: ir.Value, bias: ir.Value) -> None:
    attributes = {
        "num_heads": match.query.matrix.shape[1] // match.query.head_size,
        "scale": match.scale,
        "mask_filter_value": _HIDDEN,
    }
    node = ir.node("Attention", [match.query.x, weight, bias, mask], attributes=attributes, domain=CONTRIB)
    replace(model, match.output, [node], node.outputs[0])


def _as_int32(model: ir.Model, value: ir.Value) -> ir.Value:
    node = ir.node("Cast", [value], attributes={"to": ir.DataType.INT32})
    model.graph.insert_before(model.graph[0], node)
    return node.outputs[0]


def _perm(node: ir.Node) -> list[int]:
    return list(node.attributes.get_ints("perm", []))
