from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from modelmill.graphs import files
from modelmill.graphs.padding import join_branches, split_by_padding

LaneOf = Callable[[str], Any]


def logits(path: Path, *, full: bool) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(0)
    mask = np.ones((3, 7), np.int64)
    if not full:
        mask[1, 2:] = 0
    feeds = {"input_ids": draw.integers(1, 20, (3, 7)), "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
    found: np.ndarray = session.run(None, {item.name: feeds[item.name] for item in session.get_inputs()})[0]
    return found


@pytest.fixture
def joined(lane_of: LaneOf, tmp_path: Path) -> Path:
    model = files.load(lane_of("bert").optimized / "model.onnx")
    assert join_branches(model) == 2
    files.save(model, tmp_path, "joined")
    return tmp_path / "joined.onnx"


@pytest.mark.parametrize("full", [True, False])
def test_both_forms_give_the_one_forms_answers_to_the_last_bit(lane_of: LaneOf, joined: Path, full: bool) -> None:
    np.testing.assert_array_equal(
        logits(lane_of("bert").optimized / "model.onnx", full=full), logits(joined, full=full)
    )


def test_a_batch_without_padding_takes_the_form_without_a_mask(lane_of: LaneOf) -> None:
    proto = onnx.load(lane_of("bert").optimized / "model.onnx")
    for node in proto.graph.node:
        if node.op_type == "If":
            # Spoilt: who takes this branch gives no number.
            branch = next(item.g for item in node.attribute if item.name == "else_branch")
            scale = next(item for item in branch.node[0].attribute if item.name == "scale")
            scale.f = float("nan")
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for length, finite in ((5, True), (4, False)):
        mask = np.zeros((2, 5), np.int64)
        mask[:, :length] = 1
        feeds = {"input_ids": mask + 1, "attention_mask": mask, "token_type_ids": mask * 0}
        found = session.run(None, {item.name: feeds[item.name] for item in session.get_inputs()})[0]
        assert np.isfinite(found).all() == finite


def test_what_was_joined_can_be_split_again(lane_of: LaneOf, joined: Path, tmp_path: Path) -> None:
    model = files.load(joined)
    assert split_by_padding(model) == 2
    files.save(model, tmp_path, "again")
    again = files.load(tmp_path / "again.onnx")
    assert join_branches(again) == 2
    assert [node.op_type for node in again.graph] == [node.op_type for node in files.load(joined).graph]


def test_a_graph_without_fused_attention_stays_as_it_is(lane_of: LaneOf) -> None:
    model = files.load(lane_of("bert").exported / "model.onnx")
    before = [node.op_type for node in model.graph]
    assert (split_by_padding(model), join_branches(model)) == (0, 0)
    assert [node.op_type for node in model.graph] == before
