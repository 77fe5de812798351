from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from graph_operators import operators
from lane_steps import run_export, run_optimize
from modelmill.core.errors import ModelError
from modelmill.core.model import read_model
from modelmill.steps.optimize import run
from modelmill.targets.base import Runtime
from modelmill.targets.registry import RUNTIMES
from small_models import make_checkpoint

LaneOf = Callable[[str], Any]


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
def test_every_attention_of_known_architectures_is_fused_and_nothing_changes(
    lane_of: LaneOf, architecture: str
) -> None:
    lane = lane_of(architecture)
    assert lane.optimize_facts["fused"] == {"model": {"Attention": 2}}
    assert lane.optimize_facts["attention_left"] == {}
    assert lane.optimize_facts["optimize_parity"]["relative_deviation"] < 1e-5
    found = operators(onnx.load(lane.optimized / "model.onnx").graph)
    assert (found["Attention"], found["Softmax"], found["GatherND"]) == (2, 0, 0)


def test_facts_of_former_steps_stay(lane_of: LaneOf) -> None:
    facts = read_model(lane_of("bert").optimized).facts
    assert sorted(facts) == ["checkpoint_bytes", "export_parity", "fused", "optimize_parity"]
    assert facts["fused"] == {"model": {"Attention": 2}}


def test_attention_with_relative_positions_stays_as_it_is_and_is_counted(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", "mpnet", labels=["alpha", "beta", "gamma"])
    run_export(tmp_path / "checkpoint", tmp_path / "exported")
    facts = run_optimize(tmp_path / "exported", tmp_path / "optimized")
    assert facts["fused"] == {"model": {}}
    assert facts["attention_left"] == {"model": 2}
    assert facts["optimize_parity"]["relative_deviation"] < 1e-5


def test_a_damaged_graph_is_one_message(lane_of: LaneOf, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in lane_of("bert").exported.iterdir():
        content = path.read_bytes()
        (broken / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".onnx" else content)
    with pytest.raises(ModelError, match=r"graph"):
        run_optimize(broken, tmp_path / "model")


def test_every_runtime_has_its_pass() -> None:
    assert set(run.FUSIONS) == set(RUNTIMES) == set(Runtime)
