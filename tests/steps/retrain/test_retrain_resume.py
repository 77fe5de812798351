"""A training that is killed goes on, and ends in the bytes of one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from training_data import fine_tune, make_inputs, retrain

from modelmill.core.progress import SilentProgress
from modelmill.steps.retrain.contract import Inputs

pytestmark = pytest.mark.timeout(600)
HERE = Path(__file__).parent
KILLED = (
    "before the first step",
    "in the first epoch",
    "between a snapshot's rename and its announcement",
    "in the middle of writing a snapshot",
    "in the middle of writing the best weights",
    "after the last step",
    "again and again",
)


def start(directory: Path, inputs: Inputs, hash_seed: int, *cases: str) -> dict[str, Any]:
    arguments = [HERE / "killed_trainings.py", directory, inputs.model, inputs.train, inputs.tune, *cases]
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}", "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, env=environment, timeout=540, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def killed(learner: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each case of killed_trainings.py wrote."""
    place = tmp_path_factory.mktemp("killed")
    return start(place / "cases", make_inputs(place, learner, train=64, tune=16), 1)


def test_two_processes_in_two_places_write_the_same_bytes(
    killed: dict[str, Any], learner: Path, tmp_path: Path
) -> None:
    other = start(tmp_path / "cases", make_inputs(tmp_path, learner, train=64, tune=16), 2, "unbroken")
    assert set(other["unbroken"]["files"]) == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert other["unbroken"]["files"] == killed["unbroken"]["files"]


@pytest.mark.parametrize("case", KILLED)
def test_a_killed_training_ends_in_the_same_bytes(killed: dict[str, Any], case: str) -> None:
    unbroken, found = killed["unbroken"], killed[case]
    assert found["codes"] == [-9] * (len(found["codes"]) - 1) + [0]
    assert len(found["codes"]) > 1
    assert found["files"] == unbroken["files"]
    resumed = [text for text in found["log"] if text.startswith("goes on after step")]
    # One killed before any snapshot starts anew.
    assert len(resumed) == (0 if case == "before the first step" else len(found["codes"]) - 1)


def test_only_the_last_snapshot_and_the_best_weights_are_kept(killed: dict[str, Any]) -> None:
    for case in killed.values():
        assert len(case["left"]) == 2
        assert case["left"][0].startswith("best-")
        assert case["left"][1] == "step-000000012"


@pytest.mark.usefixtures("one_processor")
def test_a_damaged_snapshot_is_passed_over(learner: Path, tmp_path: Path) -> None:
    said: list[str] = []

    class Facts(SilentProgress):
        def fact(self, text: str) -> None:
            said.append(text)

    inputs = make_inputs(tmp_path, learner, train=64, tune=16)
    outputs, _ = retrain(tmp_path / "whole", inputs, fine_tune(epochs=2))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (outputs.progress).rename(damaged / "progress")
    snapshot = next((damaged / "progress").glob("step-*")) / "optimizer.safetensors"
    snapshot.write_bytes(snapshot.read_bytes()[:-100])
    again, _ = retrain(damaged, inputs, fine_tune(epochs=2), Facts())
    assert said[1] == "the training snapshot step-000000008 cannot be read and is passed over"
    weights = "model.safetensors"
    assert (again.checkpoint / weights).read_bytes() == (outputs.checkpoint / weights).read_bytes()
