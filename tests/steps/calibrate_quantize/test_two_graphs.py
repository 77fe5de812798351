from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fake_task import ENCODER, HEAD, FakeTask, make_fake_checkpoint
from lane_steps import make_rows, run_apply, run_choose, run_export, run_optimize
from modelmill.core.model import read_model
from modelmill.targets.onnxruntime_cpu import open_session
from modelmill.targets.pytorch import PytorchSession, load_checkpoint
from modelmill.tasks import registry
from modelmill.tasks.samples import random_batch


@pytest.fixture(scope="module")
def task() -> FakeTask:
    fake = FakeTask()
    registry.register(fake)
    return fake


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory, task: FakeTask) -> Path:
    """A directory with a two-graph checkpoint, exported and optimized, and rows."""
    here = tmp_path_factory.mktemp("two-graphs")
    make_fake_checkpoint(here / "checkpoint")
    run_export(here / "checkpoint", here / "exported", task.name)
    run_optimize(here / "exported", here / "optimized", task.name)
    make_rows(here / "rows", 40, task.name)
    return here


def test_an_encoder_and_a_head_become_two_graphs_that_run_as_one_model(lane: Path, task: FakeTask) -> None:
    document = read_model(lane / "exported")
    assert sorted(document.components) == [ENCODER, HEAD]
    assert document.components[HEAD].inputs[0].shape == ["batch", 32]
    model, processor = load_checkpoint(lane / "checkpoint", task)
    batch = random_batch(task, processor, 5, 9, padded=True)
    wanted = PytorchSession(model, processor, task, 1).run(batch)["logits"]
    found = open_session(lane / "exported", 1).run(batch)
    assert sorted(found) == ["logits", "pooled"]
    assert np.abs(found["logits"] - wanted).max() < 1e-6


@pytest.mark.parametrize("scheme", ["dynamic", "static"])
def test_both_graphs_become_int8_and_later_ranges_come_from_earlier_graphs(
    lane: Path, task: FakeTask, tmp_path: Path, scheme: str
) -> None:
    run_choose(lane / "optimized", lane / "rows", tmp_path / "choice", task.name, scheme=scheme)
    facts = run_apply(lane / "optimized", tmp_path / "choice", lane / "rows", tmp_path / "model", task.name)
    assert facts["quantized"] == {
        ENCODER: {"Attention": 2, "Gather": 1, "Gemm": 1, "MatMul": 6},
        HEAD: {"Gemm": 1},
    }
    _, processor = load_checkpoint(lane / "checkpoint", task)
    batch = random_batch(task, processor, 4, 12, padded=True)
    float32 = open_session(lane / "optimized", 1).run(batch)["logits"]
    int8 = open_session(tmp_path / "model", 1).run(batch)["logits"]
    assert 0 < np.abs(int8 - float32).max() < 0.1 * np.abs(float32).max()


def test_float32_keeps_the_bytes_of_every_graph(lane: Path, task: FakeTask, tmp_path: Path) -> None:
    run_choose(lane / "optimized", lane / "rows", tmp_path / "choice", task.name, precisions=["float32"])
    run_apply(lane / "optimized", tmp_path / "choice", lane / "rows", tmp_path / "model", task.name)
    for name in read_model(lane / "optimized").files():
        assert (tmp_path / "model" / name).read_bytes() == (lane / "optimized" / name).read_bytes()
