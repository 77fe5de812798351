"""`modelmill component`: one step on directories, what it tells Kubeflow, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lane_artifacts import TASK, judge_lane, promoted_in, publish_lanes
from modelmill.cli.main import app
from modelmill.core import manifest, registry
from modelmill.core.contract import PortType
from modelmill.core.errors import InputError, ModelmillError, UsageError
from modelmill.core.local_store import LocalStore
from modelmill.core.predictions import read_predictions
from modelmill.core.served import Opponent
from modelmill.core.stores import open_store

GATE = ("baseline", "candidate", "measurements", "smoke", "model", "rows")


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Mapping[str, Path]:
    return judge_lane(tmp_path_factory.mktemp("lane"), tiny_bert)


def component(name: str, *arguments: str, **values: Any) -> dict[str, Any]:
    sets = [item for key, value in values.items() for item in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(app, ["component", name, *arguments, *sets])
    if result.exception:
        raise result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def given(lane: Mapping[str, Path], *ports: str, **replaced: Path) -> list[str]:
    return [item for port in ports for item in ("--input", f"{port}={replaced.get(port, lane[port])}")]


def executor_input(folder: Path, parameters: Mapping[str, Any], *artifacts: str) -> str:
    outputs = {
        "artifacts": {name: {"artifacts": [{"name": name, "uri": str(folder / name)}]} for name in artifacts},
        "parameters": {"decision": {"outputFile": str(folder / "decision")}},
        "outputFile": str(folder / "executor_output.json"),
    }
    return json.dumps({"inputs": {"parameterValues": dict(parameters)}, "outputs": outputs})


def test_a_gate_gives_verdict_page_numbers_and_a_decision(lane: Mapping[str, Path], tmp_path: Path) -> None:
    parameters = {"task": TASK, "target": "mine", "policy_max_drop_points": 5, "policy_min_rows": 50.0}
    told = executor_input(tmp_path / "out", parameters, "verdict", "report", "metrics")
    outputs = [item for name in ("verdict", "report") for item in ("--output", f"{name}={tmp_path / 'out' / name}")]
    found = component("gate", *given(lane, *GATE), *outputs, "--executor-input", told)
    assert found["facts"]["verdict"] == "pass"
    assert (tmp_path / "out" / "report").read_text("utf-8").startswith("<!doctype html>")
    verdict = tmp_path / "out" / "verdict"
    manifest.verify(verdict, manifest.read(verdict))
    assert manifest.read(verdict).made_by["key"] == found["key"]
    written = json.loads((tmp_path / "out" / "executor_output.json").read_text("utf-8"))
    assert written["parameterValues"] == {"decision": "pass"}
    metadata = {name: item["artifacts"][0].get("metadata") for name, item in written["artifacts"].items()}
    assert metadata["verdict"] == {"digest": found["outputs"]["verdict"], "step_key": found["key"]}
    assert metadata["metrics"]["baseline"] == metadata["metrics"]["candidate"] == 0.99


def test_a_place_where_no_output_can_be_made_is_named(lane: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in ("/proc/x/o", str(tmp_path / "file" / "o")):
        with pytest.raises(InputError, match="no output can be made in"):
            component("gate", *given(lane, *GATE), "--output", f"verdict={place}", task=TASK, target="mine")


def test_a_refusal_is_a_decision_and_no_failure(lane: Mapping[str, Path]) -> None:
    found = component("gate", *given(lane, *GATE), task=TASK, target="mine", policy_min_speedup=99)
    assert found["facts"]["verdict"] == "fail"


def test_publish_writes_the_store_that_it_is_given(lane: Mapping[str, Path], tmp_path: Path) -> None:
    arguments = [
        item
        for name, port in (("models", "model"), ("choices", "choice"), ("verdicts", "verdict"))
        for item in ("--input", f"{name}={lane[port]}")
    ]
    store = tmp_path / "store"
    found = component(
        "publish",
        *arguments,
        "--output",
        f"bundle={tmp_path / 'bundle'}",
        "--store",
        str(store),
        model="mine",
        channel="staging",
    )
    channel = registry.show_channel(open_store(str(store)), "mine", "staging")
    assert channel is not None
    assert channel.bundle == found["facts"]["bundle"]
    assert manifest.read(tmp_path / "bundle").digest == found["outputs"]["bundle"]
    with pytest.raises(InputError, match="needs a store"):
        component("publish", *arguments, model="mine", channel="staging")


def test_inputs_without_a_manifest_and_outputs_of_another_step_are_one(
    lane: Mapping[str, Path], tmp_path: Path
) -> None:
    plain = component("gate", *given(lane, *GATE), task=TASK, target="mine")
    rows = tmp_path / "rows"
    shutil.copytree(lane["rows"], rows)
    manifest.write_json(rows / "manifest.json", manifest.build(rows, PortType.ROWS).model_dump(mode="json"))
    assert component("gate", *given(lane, *GATE, rows=rows), task=TASK, target="mine")["key"] == plain["key"]


def _damaged(folder: Path) -> None:
    manifest.write_json(folder / "manifest.json", manifest.build(folder, PortType.ROWS).model_dump(mode="json"))
    (folder / "rows.jsonl").write_text("", "utf-8")


def _mistaken(folder: Path) -> None:
    manifest.write_json(folder / "manifest.json", manifest.build(folder, PortType.MODEL).model_dump(mode="json"))


def _rewrite(folder: Path, name: str, change: Any) -> None:
    (folder / name).write_text(change((folder / name).read_text("utf-8")), "utf-8")


WRONG: dict[str, tuple[Any, str]] = {
    "no description": (lambda rows: (rows / "dataset.json").unlink(), "it has no dataset.json"),
    "a description of another form": (lambda rows: (rows / "dataset.json").write_text("[]"), "no JSON mapping"),
    "a description without labels": (
        lambda rows: _rewrite(rows, "dataset.json", lambda text: text.replace('"labels"', '"label"')),
        "labels",
    ),
    "no rows": (lambda rows: (rows / "rows.jsonl").unlink(), "has no rows.jsonl"),
    "a row that is no JSON": (lambda rows: _rewrite(rows, "rows.jsonl", lambda text: "x" + text), "row 1 .* no JSON"),
    "a row without id": (
        lambda rows: _rewrite(rows, "rows.jsonl", lambda text: text.replace('"id"', '"key"', 1)),
        "row 1 .* no text id",
    ),
    "a row without text": (
        lambda rows: _rewrite(rows, "rows.jsonl", lambda text: text.replace('"text"', '"words"', 1)),
        "row 1 .* has no text",
    ),
    "fewer rows than said": (
        lambda rows: _rewrite(rows, "rows.jsonl", lambda text: "".join(text.splitlines(keepends=True)[1:])),
        "says 300 rows, and rows.jsonl has 299",
    ),
    "an artifact of another type": (_mistaken, "takes a rows artifact, and this is a model artifact"),
    "changed bytes": (_damaged, "rows.jsonl differs from its sha256"),
    "a link": (lambda rows: (rows / "more").symlink_to(rows / "rows.jsonl"), "regular files only"),
}


@pytest.mark.parametrize("name", WRONG)
def test_rows_that_are_none_are_refused(name: str, lane: Mapping[str, Path], tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    shutil.copytree(lane["rows"], rows)
    change, said = WRONG[name]
    change(rows)
    with pytest.raises(ModelmillError, match=said):
        component("gate", *given(lane, *GATE, rows=rows), task=TASK, target="mine")


@pytest.mark.parametrize(
    ("step", "values", "said"),
    [
        ("gaet", {}, "did you mean gate"),
        ("gate", {"task": TASK, "target": "x", "policy_min_rwos": 1}, "did you mean policy_min_rows"),
        ("gate", {"task": TASK, "target": "x", "policy_min_rows": "many"}, "is not JSON"),
        ("gate", {"task": TASK, "target": "x", "policy_confidence": 2}, "policy.confidence"),
        ("gate", {"task": TASK}, "target"),
        ("retrain", {"task": TASK, "retrain_method": "none", "retrain_epochs": 5}, "no such setting"),
        ("retrain", {"task": TASK, "retrain_epochs": 5}, "retrain_method"),
        ("retrain", {"task": TASK, "retrain_method": "magic"}, "fine-tune"),
        ("evaluate-measure", {"task": TASK, "runtime": "onnxruntime", "cells": "[]"}, "cells"),
        ("evaluate-measure", {"task": TASK, "runtime": "onnxruntime-rocm", "cells": "[]"}, "runtime: input should be"),
        ("gate", {"task": "text-clasification", "target": "x"}, "task: there is no task 'text-clasification': did"),
    ],
)
def test_wrong_parameters_are_refused_by_name(
    step: str, values: Mapping[str, Any], said: str, lane: Mapping[str, Path]
) -> None:
    known = {"gate": GATE, "retrain": ("model", "train", "tune")}.get(step)
    ports = known or ("checkpoint", "exported", "optimized", "candidate", "rows")
    arguments = [item for port in ports for item in ("--input", f"{port}={lane.get(port, lane['rows'])}")]
    with pytest.raises(InputError) as refused:
        component(step, *arguments, **values)
    assert said in str(refused.value)


def test_under_kubeflow_a_file_is_read_only_where_mounts_say(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    source = {"task": TASK, "model_source": f"file:{tmp_path / 'model'}", "data_source": f"file:{tmp_path}"}
    with pytest.raises(InputError, match="mount"):
        component("fetch", "--executor-input", executor_input(tmp_path, source))
    with pytest.raises(InputError) as refused:
        component("fetch", "--executor-input", executor_input(tmp_path, {**source, "mounts": [str(tmp_path)]}))
    assert "mount" not in str(refused.value)


def test_ports_and_places_are_refused_by_name(lane: Mapping[str, Path], tmp_path: Path) -> None:
    values = {"task": TASK, "target": "mine"}
    with pytest.raises(InputError, match="needs the input rows"):
        component("gate", *given(lane, *GATE[:-1]), **values)
    with pytest.raises(InputError, match="has no output judgement"):
        component("gate", *given(lane, *GATE), "--output", f"judgement={tmp_path / 'x'}", **values)
    with pytest.raises(InputError, match="is there already"):
        component("gate", *given(lane, *GATE), "--output", f"verdict={lane['verdict']}", **values)
    with pytest.raises(InputError, match="is not there"):
        component("gate", *given(lane, *GATE, rows=tmp_path / "none"), **values)
    with pytest.raises(InputError, match="writes no store"):
        component("gate", *given(lane, *GATE), "--store", str(tmp_path / "store"), **values)
    with pytest.raises(InputError, match="no ExecutorInput"):
        component("gate", *given(lane, *GATE), "--executor-input", "{}", **values)


def test_a_pipeline_of_ones_own_holds_a_candidate_against_what_a_store_serves(
    lane: Mapping[str, Path], tmp_path: Path, tiny_bert: Path
) -> None:
    store = LocalStore(tmp_path / "store")
    champion = judge_lane(tmp_path / "champion", tiny_bert, seed=1)
    digest = promoted_in(store, publish_lanes(tmp_path / "bundle", {"cpu-int8": champion}))
    served = json.dumps({"model": "banking", "channel": "staging", "lane": "cpu-int8", "against": ["champion"]})
    asked = [*given(lane, "model", "rows"), "--output", f"predictions={tmp_path / 'predictions'}"]
    with pytest.raises(UsageError, match="needs a store"):
        component("evaluate-candidate", *asked, task=TASK, runtime="onnxruntime", served=served)
    with pytest.raises(UsageError, match="uses a store only with the parameter served"):
        component("evaluate-candidate", *asked, "--store", store.uri, task=TASK, runtime="onnxruntime")
    component("evaluate-candidate", *asked, "--store", store.uri, task=TASK, runtime="onnxruntime", served=served)
    found, arrays = read_predictions(tmp_path / "predictions")
    assert found.served[Opponent.CHAMPION].bundle == digest
    assert set(arrays) == {"outputs", "predicted", "reference", "predicted_champion"}
    assert not list((tmp_path / "store").glob("keys/*")), "a component finds nothing again, and keeps nothing"
