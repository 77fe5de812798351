"""One recipe, a lane on each CPU runtime: equal work is done once, and every step of a lane runs on its own runtime."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import onnx
import pytest

from graph_operators import all_nodes
from modelmill.core import records
from modelmill.core.local_store import LocalStore
from modelmill.core.store import Store
from modelmill.runners.result import RunDocument, Status
from whole_line import make_recipe, run_in_this_process

TARGETS = [
    {"name": "ort", "runtime": "onnxruntime", "precision": "int8", "scheme": "static"},
    {"name": "ov", "runtime": "openvino", "precision": "int8", "scheme": "static"},
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return LocalStore(tmp_path_factory.mktemp("two-runtimes"))


@pytest.fixture(scope="module")
def run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> RunDocument:
    recipe = make_recipe(
        tmp_path_factory.mktemp("recipe"), targets=TARGETS, gate={"max_drop_points": 5.0, "min_speedup": None}
    )
    return run_in_this_process(recipe, store)


def artifact(store: Store, run: RunDocument, step: str, target: str, port: str) -> Path:
    (row,) = (row for row in run.steps if (row.name, row.part, row.target) == (*split(step), target))
    return Path(str(store.artifact_uri(row.digests[port])).removeprefix("file://"))


def split(step: str) -> tuple[str, str | None]:
    name, _, part = step.partition(":")
    return name, part or None


def test_both_lanes_are_promoted_with_the_accuracy_that_was_trained(run: RunDocument) -> None:
    assert run.status is Status.PROMOTED
    assert {name: lane.precision for name, lane in run.targets.items()} == {"ort": "int8", "ov": "int8"}
    assert all(lane.candidate > 0.9 for lane in run.targets.values())


def test_the_export_is_made_once_for_both(run: RunDocument) -> None:
    exports = [row for row in run.steps if row.name == "export"]
    assert [row.cached for row in exports] == [False, True]


def test_openvinos_graphs_have_none_of_onnxruntimes_own_operators(run: RunDocument, store: Store) -> None:
    for step in ("optimize", "calibrate-quantize"):
        domains = {
            target: {
                node.domain
                for node in all_nodes(onnx.load(artifact(store, run, step, target, "model") / "model.onnx").graph)
            }
            for target in ("ort", "ov")
        }
        assert domains["ort"] == {"", "com.microsoft"}
        assert domains["ov"] == {""}


def test_the_version_of_a_lanes_own_runtime_is_in_the_keys_of_what_it_shapes(run: RunDocument, store: Store) -> None:
    version = metadata.version("openvino")
    for row in run.steps:
        record, _ = records.find(store, row.key)
        assert record is not None
        # The smoke test's server runs ONNX Runtime, and no lane of OpenVINO's yet.
        shaped = (
            row.target == "ov" and row.name in {"optimize", "calibrate-quantize", "evaluate"} and row.part != "smoke"
        )
        assert record.packages.get("openvino") == (version if shaped else None), row.name


def test_measurements_name_the_runtime_that_was_timed(run: RunDocument, store: Store) -> None:
    found = {
        target: json.loads(
            (artifact(store, run, "evaluate:measure", target, "measurements") / "measurements.json").read_bytes()
        )
        for target in ("ort", "ov")
    }
    assert "openvino" in found["ov"]["packages"]
    assert "onnxruntime" not in found["ov"]["packages"]
    assert "openvino" not in found["ort"]["packages"]
    assert all(item["load_seconds"] > 0 for item in found.values())
