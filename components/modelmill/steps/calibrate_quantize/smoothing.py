"""SmoothQuant: channels of an activation made alike before it is quantized, by scales that the weights give back.

Source: arXiv:2211.10438, eq. 3 and 4. The division by the scales is folded into what makes the activation. Where that
is not possible (a layer normalisation whose output is a residual, too, as in BERT and its kin; a GELU), the product is
not smoothed, but for a runtime that computes a multiplication and the quantizer after it as one: OpenVINO has to
quantize such a value by an operator of its own anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from modelmill.graphs.matching import CONTRIB, add_initializer, biased, constant, only_user, producer
from modelmill.steps.calibrate_quantize.histograms import outward
from modelmill.steps.calibrate_quantize.products import Product, products

_LEAST = 1e-5
"""Below this a channel says nothing: its scale is 1."""
_HEADS_LAST = [0, 2, 1, 3]


@dataclass
class ChannelMaxima:
    """The largest magnitude of each channel, the last axis."""

    largest: np.ndarray = field(default_factory=lambda: np.zeros(1, np.float32))

    def add(self, values: np.ndarray) -> None:
        """Look at the values of one batch, shape (…, channels)."""
        self.largest = np.maximum(self.largest, np.abs(values).reshape(-1, values.shape[-1]).max(axis=0))


@dataclass(frozen=True)
class _Constant:
    """A constant of a node, and the column from which on the channels lie in it."""

    node: ir.Node
    index: int
    offset: int = 0


@dataclass(frozen=True)
class Smoothable:
    """An activation whose channels can be scaled where they are made.

    Attributes:
        x: The activation.
        products: All that read it.
        made_by: The constants whose last axis makes its channels; none where a multiplication must.
    """

    x: ir.Value
    products: Sequence[Product]
    made_by: Sequence[_Constant]


def smoothable(model: ir.Model, *, multiply: bool = False, kept: Set[str] = frozenset()) -> list[Smoothable]:
    """The activations that can be smoothed, in the graph's order.

    Args:
        model: A float32 graph.
        multiply: Whether an activation is multiplied where nothing takes its scales in.
        kept: Names of products that stay float32: what they read is not multiplied.
    """
    readers: dict[int, list[Product]] = {}
    floats = set()
    for number, product in enumerate(products(model)):
        readers.setdefault(id(product.x), []).append(product)
        if str(number) in kept:
            floats.add(id(product.x))
    found = []
    for some in readers.values():
        x = some[0].x
        alone = not x.is_graph_output() and len(x.uses()) == len(some)
        made_by = _made_by(x, some[0].weight.shape[0]) if alone else None
        divides = multiply and id(x) not in floats and all(item.node.op_type != "Attention" for item in some)
        if (made_by or divides) and all(_is_own(_Constant(product.node, 1)) for product in some):
            found.append(Smoothable(x, some, made_by or []))
    return found


def smooth(
    model: ir.Model,
    largest: Mapping[str, np.ndarray],
    strength: float,
    *,
    multiply: bool = False,
    kept: Set[str] = frozenset(),
) -> int:
    """Smooth a float32 graph in place; what it computes stays the same.

    Args:
        model: The graph.
        largest: Value name → largest magnitude of each channel, float32, shape (channels,), for what is `smoothable`.
        strength: Eq. 4's α: how much of the difficulty moves from activations to weights.
        multiply: As for `smoothable`.
        kept: As for `smoothable`.

    Returns:
        How many products were smoothed.
    """
    count = 0
    for item in smoothable(model, multiply=multiply, kept=kept):
        scales = _scales(largest[item.x.name or ""], item.products, strength)
        for made in item.made_by:
            _change(model, made, 1.0 / scales)
        if not item.made_by:
            _multiply(model, item, 1.0 / scales)
        for product in item.products:
            _change(model, _Constant(product.node, 1), scales, rows=True)
        count += len(item.products)
    return count


def _multiply(model: ir.Model, item: Smoothable, factors: np.ndarray) -> None:
    name = f"smoothing_{len(model.graph.initializers)}"
    node = ir.node("Mul", [item.x, add_initializer(model, name, factors.astype(np.float32))])
    node.outputs[0].name = f"{name}.product"
    model.graph.insert_before(item.products[0].node, node)
    for product in item.products:
        product.node.replace_input_with(0, node.outputs[0])


def _scales(largest: np.ndarray, readers: Sequence[Product], strength: float) -> np.ndarray:
    weights = np.max([np.abs(product.weight).max(axis=1) for product in readers], axis=0)
    # Rounded: the last bits of another machine's kernels do not reach the bytes.
    values = np.asarray([outward(float(value)) for value in largest])
    told = (values > _LEAST) & (weights > _LEAST)
    scales = np.where(told, values**strength / np.maximum(weights, _LEAST) ** (1 - strength), 1.0)
    return np.maximum(scales, _LEAST).astype(np.float32)


def _made_by(x: ir.Value, channels: int) -> list[_Constant] | None:
    """The constants that make the channels of ``x``: of a normalisation, or of attention's values."""
    node = producer(x, "LayerNormalization")
    if node is not None:
        found = [_Constant(node, index) for index in (1, 2) if index < len(node.inputs) and node.inputs[index]]
    else:
        found = _values_of(x, channels) or []
    return found if found and all(_is_own(item) for item in found) else None


def _values_of(x: ir.Value, channels: int) -> list[_Constant] | None:
    """The projection to attention's values: its columns are the channels of the context."""
    fused = x.producer()
    if fused is not None and fused.op_type == "Attention" and fused.domain == CONTRIB:
        return [_Constant(fused, 1, -channels), _Constant(fused, 2, -channels)]
    merged = producer(x, "Reshape")
    moved = producer(merged.inputs[0], "Transpose") if merged is not None else None
    context = producer(moved.inputs[0], "MatMul") if moved is not None else None
    heads = producer(context.inputs[1], "Transpose") if context is not None else None
    split = producer(heads.inputs[0], "Reshape") if heads is not None else None
    if moved is None or context is None or heads is None or split is None or split.inputs[0] is None:
        return None
    orders = [list(node.attributes.get_ints("perm", [])) for node in (moved, heads)]
    path = [(moved.outputs[0], "Reshape"), (context.outputs[0], "Transpose"), (heads.outputs[0], "MatMul"),
            (split.outputs[0], "Transpose"), (split.inputs[0], "Reshape")]  # fmt: skip
    if orders != [_HEADS_LAST, _HEADS_LAST] or any(only_user(value, reader) is None for value, reader in path):
        return None
    inner, bias = biased(split.inputs[0])
    product = producer(inner, "MatMul")
    weight = constant(product.inputs[1]) if product is not None else None
    if product is None or weight is None or weight.ndim != 2 or weight.shape[1] != channels:
        return None
    found = [_Constant(product, 1)]
    added = split.inputs[0].producer()
    if bias is not None and added is not None:
        if only_user(inner, "Add") is None:
            return None
        found.append(_Constant(added, list(added.inputs).index(bias)))
    return found


def _is_own(item: _Constant) -> bool:
    """Whether a constant may be changed: layers that share a matrix would each need one of their own."""
    value = item.node.inputs[item.index]
    array = constant(value)
    return value is not None and array is not None and (array.ndim < 2 or len(value.uses()) == 1)


def _change(model: ir.Model, item: _Constant, factors: np.ndarray, *, rows: bool = False) -> None:
    value = item.node.inputs[item.index]
    array = constant(value)
    if value is None or array is None:
        what = f"{item.node.name} has no constant at input {item.index}"
        raise ValueError(what)
    changed = np.array(array)
    transposed = item.node.op_type == "Gemm" and item.node.attributes.get_int("transB", 0) != 0
    if rows and not transposed:
        changed *= factors[:, None]
    else:
        changed[..., item.offset :] *= factors
    name = f"smoothed_{len(model.graph.initializers)}"
    item.node.replace_input_with(item.index, add_initializer(model, name, changed))
