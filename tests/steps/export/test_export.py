from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

from lane_steps import run_export
from modelmill.core.errors import ModelError
from modelmill.core.model import read_model
from modelmill.targets.onnxruntime_cpu import open_session
from modelmill.targets.pytorch import load_checkpoint
from modelmill.tasks import registry
from modelmill.tasks.samples import random_batch

LaneOf = Callable[[str], Any]


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
def test_exported_graphs_equal_pytorch_on_every_shape_of_the_grid(lane_of: LaneOf, architecture: str) -> None:
    parity = lane_of(architecture).export_facts["export_parity"]
    assert parity["relative_deviation"] < 1e-5
    assert parity["shapes"] == [f"{batch}x{length}" for length in (1, 5, 64) for batch in (1, 2, 7)]


def test_a_model_tells_how_large_its_checkpoint_was(lane_of: LaneOf) -> None:
    lane = lane_of("bert")
    size = (lane.checkpoint / "model.safetensors").stat().st_size
    assert read_model(lane.exported).facts["checkpoint_bytes"] == size


def test_batch_and_sequence_vary(lane_of: LaneOf) -> None:
    lane = lane_of("bert")
    document = read_model(lane.exported)
    assert document.components["model"].inputs[0].shape == ["batch", "sequence"]
    assert document.components["model"].outputs[0].shape == ["batch", 3]
    task = registry.get("text-classification")
    _, processor = load_checkpoint(lane.checkpoint, task)
    session = open_session(lane.exported, 1)
    for batch_size, length in ((1, 1), (1, 33), (9, 2), (33, 17)):
        batch = random_batch(task, processor, batch_size, length, padded=False)
        assert session.run(batch)["logits"].shape == (batch_size, 3)


def test_a_row_answers_alike_alone_and_padded_among_others(lane_of: LaneOf) -> None:
    lane = lane_of("roberta")
    task = registry.get("text-classification")
    _, processor = load_checkpoint(lane.checkpoint, task)
    rows = [{"id": "1", "text": "my card"}, {"id": "2", "text": "why is my top up still pending at the bank"}]
    features = task.encode(processor, rows, 64)
    session = open_session(lane.exported, 1)
    together = session.run(task.collate(processor, features))["logits"]
    alone = session.run(task.collate(processor, features[:1]))["logits"]
    assert np.abs(together[:1] - alone).max() < 1e-6


def test_the_artifact_keeps_labels_length_opset_and_tokenizer(lane_of: LaneOf) -> None:
    lane = lane_of("bert")
    document = read_model(lane.exported)
    assert (document.labels, document.max_length, document.opset) == (["alpha", "beta", "gamma"], 64, 20)
    assert (document.precision, document.architecture) == ("float32", "bert")
    assert document.processors == {"tokenizer": ["tokenizer.json", "tokenizer_config.json"]}
    assert AutoConfig.from_pretrained(lane.exported).id2label[2] == "gamma"
    assert AutoTokenizer.from_pretrained(lane.exported)("my card")["input_ids"][0] == 2


def test_another_opset_is_honoured_and_recorded(lane_of: LaneOf) -> None:
    lane = lane_of("distilbert")
    document = read_model(lane.exported)
    assert document.opset == 18
    assert onnx.load(lane.exported / "model.onnx").opset_import[0].version == 18


def test_a_deviation_beyond_the_bound_is_refused(lane_of: LaneOf, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"logits deviates by .* of its scale, 1e-12 is allowed"):
        run_export(lane_of("bert").checkpoint, tmp_path / "model", max_relative_deviation=1e-12)


def test_a_weight_that_is_not_finite_is_named(lane_of: LaneOf, tmp_path: Path) -> None:
    shutil.copytree(lane_of("bert").checkpoint, tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    weights["classifier.bias"][1] = torch.nan
    save_file(weights, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"classifier\.bias"):
        run_export(tmp_path / "broken", tmp_path / "model")


def test_facts_in_the_model_hold_no_last_bits_of_a_machine(lane_of: LaneOf) -> None:
    facts = json.loads((lane_of("bert").exported / "model.json").read_text())["facts"]
    assert facts["export_parity"]["relative_deviation_at_most"] in (1e-8, 1e-7, 1e-6, 1e-5)
