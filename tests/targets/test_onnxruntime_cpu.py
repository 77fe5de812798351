from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelmill.core.errors import ModelError
from modelmill.core.model import Chain, Stage
from modelmill.targets.onnxruntime_cpu import open_session
from two_graphs import batch, change, write_two_graphs


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_two_graphs(tmp_path)


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
