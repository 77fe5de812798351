"""A model artifact of two graphs, by hand: what every runtime must chain, feed and refuse alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from modelmill.core.model import Chain, Component, ModelDocument, Stage, Tensor, read_model, write_model

GRAPHS = {
    "table": """<ir_version: 10, opset_import: ["" : 20]>
    table (int64[batch, sequence] input_ids) => (float[batch, sequence, 2] states)
    <float[3, 2] rows = {0.0, 1.0, 10.0, 11.0, 20.0, 21.0}> { states = Gather (rows, input_ids) }""",
    "sum": """<ir_version: 10, opset_import: ["" : 20]>
    total (float[batch, sequence, 2] x, int32[batch, sequence] mask) => (float[batch, 2] y)
    <int64[1] axis = {1}, int64[1] last = {-1}> {
        wide = Unsqueeze (mask, last)
        weights = Cast <to = 1> (wide)
        kept = Mul (x, weights)
        y = ReduceSum <keepdims = 0> (kept, axis)
    }""",
}


def _tensor(name: str, dtype: str, *shape: int | str) -> Tensor:
    return Tensor(name=name, dtype=dtype, shape=list(shape))


def write_two_graphs(directory: Path) -> Path:
    """Two graphs: one looks rows up, the next sums what it gave where a mask is set."""
    for name, text in GRAPHS.items():
        onnx.save(onnx.parser.parse_model(text), directory / f"{name}.onnx")
    (directory / "config.json").write_text("{}")
    ids, states = (
        _tensor("input_ids", "int64", "batch", "sequence"),
        _tensor("states", "float32", "batch", "sequence", 2),
    )
    x, mask = _tensor("x", "float32", "batch", "sequence", 2), _tensor("mask", "int32", "batch", "sequence")
    document = ModelDocument(
        task="text-classification",
        architecture="by-hand",
        precision="float32",
        opset=20,
        components={
            "table": Component(file="table.onnx", inputs=[ids], outputs=[states]),
            "sum": Component(file="sum.onnx", inputs=[x, mask], outputs=[_tensor("y", "float32", "batch", 2)]),
        },
        execution=Chain(
            stages=[
                Stage(component="table", feeds={"input_ids": "input_ids"}, gives={"states": "hidden"}),
                Stage(component="sum", feeds={"x": "hidden", "mask": "attention_mask"}, gives={"y": "total"}),
            ]
        ),
        processors={},
        max_length=8,
    )
    write_model(directory, document)
    return directory


def batch(**changes: Any) -> dict[str, np.ndarray]:
    """Two rows of three tokens."""
    ids, mask = np.asarray([[1, 2, 0], [2, 2, 2]]), np.asarray([[1, 1, 0], [1, 0, 0]])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids), **changes}


def change(model: Path, **changes: Any) -> None:
    """Give model.json other fields."""
    write_model(model, read_model(model).model_copy(update=changes))
