"""Graphs on disk: bytes that depend on the model alone, weights inside or beside the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common as passes

from modelmill.core.errors import ModelError
from modelmill.core.model import Component, Tensor

EMBED_LIMIT_BYTES = 2_000_000_000
"""Weights up to this stay in the graph's file; a protobuf message ends at 2^31 - 1 bytes (protobuf.dev, encoding)."""
DEFAULT_DOMAINS = ("", "ai.onnx")


def load(path: Path) -> ir.Model:
    """A graph, its external weights read when used.

    Raises:
        ModelError: It is no ONNX file.
    """
    try:
        return ir.load(path)
    except Exception as error:  # protobuf, onnx_ir and the file system each have their own
        what = f"the graph cannot be read: {str(error).splitlines()[0]}"
        raise ModelError(what, where=str(path), fix="run the line again to make the graph anew") from None


def strip(model: ir.Model) -> None:
    """Remove whatever tells of the machine or only of the tracing, in place.

    The exporter writes stack traces with install paths, scopes and the printed graph into ``metadata_props``, and
    shapes of intermediate values that later rewrites make stale. Inputs and outputs keep their types and shapes.
    """
    model.producer_name, model.producer_version, model.doc_string = "modelmill", None, None
    model.domain, model.model_version = None, None
    model.metadata_props.clear()
    for graph in model.graphs():
        graph.doc_string = None
        graph.metadata_props.clear()
        kept = {id(value) for value in (*graph.inputs, *graph.outputs)}
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            _strip_value(value)
            if id(value) not in kept:
                value.shape, value.type = None, None
        for node in graph:
            node.doc_string = None
            node.metadata_props.clear()
            for value in node.outputs:
                _strip_value(value)
                if id(value) not in kept:
                    value.shape, value.type = None, None


def save(model: ir.Model, directory: Path, name: str, *, embed_limit_bytes: int = EMBED_LIMIT_BYTES) -> list[str]:
    """Write ``<name>.onnx``, and ``<name>.onnx.data`` where the weights are too many to be embedded.

    Nodes are named by their order, so that bytes do not depend on what a rewrite called them; weights lie in the
    order of their names.

    Returns:
        The external data files, relative to ``directory``.
    """
    strip(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    for index, node in enumerate(model.graph.all_nodes()):
        node.name = f"{node.op_type}_{index}"
    ordered = [model.graph.initializers.pop(key) for key in sorted(model.graph.initializers)]
    for value in ordered:
        model.graph.initializers[value.name or ""] = value
    file = f"{name}.onnx"
    if weight_bytes(model) <= embed_limit_bytes:
        ir.save(model, directory / file)
        return []
    data = f"{file}.data"
    ir.save(model, directory / file, external_data=data)
    return [data]


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def opset_of(model: ir.Model) -> int:
    """The version of ONNX's default domain that a graph imports."""
    return next(version for domain, version in model.opset_imports.items() if domain in DEFAULT_DOMAINS)


def component_of(model: ir.Model, name: str, external_data: list[str]) -> Component:
    """What model.json says of the graph that was saved under ``name``."""
    return Component(
        file=f"{name}.onnx",
        external_data=external_data,
        inputs=[_tensor_of(value) for value in model.graph.inputs],
        outputs=[_tensor_of(value) for value in model.graph.outputs],
    )


def name_axes(model: ir.Model, axes: Mapping[str, Mapping[int, str]]) -> None:
    """Give the axes of inputs and outputs their names, in place.

    Args:
        model: A graph whose varying axes have the tracer's names (``s18``).
        axes: Input or output name → axis → name.

    Raises:
        ModelError: An axis that must vary has a fixed size.
    """
    renamed: dict[str, str] = {}
    values = [*model.graph.inputs, *model.graph.outputs]
    for value in values:
        for axis, wanted in axes.get(value.name or "", {}).items():
            found = value.shape[axis] if value.shape is not None else None
            if isinstance(found, int):
                what = f"the exported graph fixes the axis {axis} ({wanted}) of {value.name} to {found}"
                raise ModelError(what, fix="the model's code branches on that size: export it with another sample")
            if found is not None and found.value:
                renamed[found.value] = wanted
    for value in values:
        declared = axes.get(value.name or "", {})
        value.shape = ir.Shape(
            [
                size if isinstance(size, int) else declared.get(axis) or renamed.get(size.value or "", size.value)
                for axis, size in enumerate(value.shape or ())
            ]
        )


def _strip_value(value: ir.Value) -> None:
    value.doc_string = None
    value.metadata_props.clear()


def _tensor_of(value: ir.Value) -> Tensor:
    if value.dtype is None or value.shape is None:
        what = f"the exported graph does not tell the type or the shape of {value.name}"
        raise ModelError(what, fix="export it with the exporter's shape inference")
    shape = [size if isinstance(size, int) else str(size.value) for size in value.shape]
    return Tensor(name=value.name or "", dtype=value.dtype.numpy().name, shape=shape)
