from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from modelmill.core.errors import ModelError
from modelmill.core.model import Chain, Component, ModelDocument, Stage, Tensor, read_model, write_model
from modelmill.targets.onnxruntime_cpu import open_session

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


def tensor(name: str, dtype: str, *shape: int | str) -> Tensor:
    return Tensor(name=name, dtype=dtype, shape=list(shape))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two graphs: one looks rows up, the next sums what it gave where a mask is set."""
    for name, text in GRAPHS.items():
        onnx.save(onnx.parser.parse_model(text), tmp_path / f"{name}.onnx")
    (tmp_path / "config.json").write_text("{}")
    ids, states = tensor("input_ids", "int64", "batch", "sequence"), tensor("states", "float32", "batch", "sequence", 2)
    x, mask = tensor("x", "float32", "batch", "sequence", 2), tensor("mask", "int32", "batch", "sequence")
    document = ModelDocument(
        task="text-classification",
        architecture="by-hand",
        precision="float32",
        opset=20,
        components={
            "table": Component(file="table.onnx", inputs=[ids], outputs=[states]),
            "sum": Component(file="sum.onnx", inputs=[x, mask], outputs=[tensor("y", "float32", "batch", 2)]),
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
    write_model(tmp_path, document)
    return tmp_path


def batch(**changes: Any) -> dict[str, np.ndarray]:
    ids, mask = np.asarray([[1, 2, 0], [2, 2, 2]]), np.asarray([[1, 1, 0], [1, 0, 0]])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids), **changes}


def change(model: Path, **changes: Any) -> None:
    write_model(model, read_model(model).model_copy(update=changes))


def test_a_later_graph_is_fed_by_an_earlier_one_and_dtypes_become_the_graphs(model: Path) -> None:
    values = open_session(model, 2).run(batch())
    assert sorted(values) == ["hidden", "total"]
    assert values["total"].tolist() == [[30.0, 32.0], [20.0, 21.0]]


def test_values_are_the_same_on_any_number_of_threads(model: Path) -> None:
    results = [open_session(model, threads).run(batch())["total"] for threads in (1, 2, 3)]
    assert all((result == results[0]).all() for result in results)


def test_a_missing_column_is_named(model: Path) -> None:
    incomplete = batch()
    del incomplete["attention_mask"]
    with pytest.raises(ModelError, match="takes attention_mask, which the batch does not have"):
        open_session(model, 1).run(incomplete)


def test_a_token_outside_the_table_is_one_message_with_the_shapes(model: Path) -> None:
    with pytest.raises(ModelError, match=r"'table' refuses its input \(input_ids int64\[1, 1\]\)") as found:
        open_session(model, 1).run(batch(input_ids=np.asarray([[7]])))
    assert "\n" not in found.value.what


def test_a_damaged_graph_is_one_message(model: Path) -> None:
    (model / "sum.onnx").write_bytes((model / "sum.onnx").read_bytes()[:40])
    with pytest.raises(ModelError, match="cannot load the graph") as found:
        open_session(model, 1)
    assert found.value.where == str(model / "sum.onnx")


def test_a_graph_with_other_inputs_than_declared_is_refused(model: Path) -> None:
    (model / "sum.onnx").write_bytes((model / "table.onnx").read_bytes())
    with pytest.raises(ModelError, match="gives the graph 'sum' the inputs"):
        open_session(model, 1)


def test_a_stage_of_a_graph_that_is_not_there_is_refused(model: Path) -> None:
    change(model, execution=Chain(stages=[Stage(component="decoder", feeds={}, gives={})]))
    with pytest.raises(ModelError, match="runs the graph 'decoder'"):
        open_session(model, 1)


def test_a_stage_that_leaves_an_input_unfed_is_refused(model: Path) -> None:
    change(model, execution=Chain(stages=[Stage(component="sum", feeds={"x": "x"}, gives={"y": "y"})]))
    with pytest.raises(ModelError, match="does not feed or read the graph 'sum'"):
        open_session(model, 1)
