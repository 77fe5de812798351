"""Lanes in which something outside fails: the others go on, and what the recipe requires decides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelmill import recipe as recipes
from modelmill.cli.running import print_run
from modelmill.core import records, registry
from modelmill.core.bundle import verify
from modelmill.core.errors import LaneError
from modelmill.core.local_store import LocalStore
from modelmill.core.stores import open_store
from modelmill.deployment import Backend, Deployment
from modelmill.line import Job
from modelmill.runners.containers import Described, describe
from modelmill.runners.kubeflow import POINTER, compile_to
from modelmill.runners.result import RunDocument, Status
from orchestrate import orchestrate
from small_models import make_checkpoint
from whole_line import TOPICS, make_recipe, make_rows, run_in_this_process

LANES = [{"name": "cpu-int8", "precision": "int8"}, {"name": "cpu-float", "precision": "float32"}]
GATE = {"max_drop_points": 100.0, "max_size_ratio": 2.0}
"""The model is random, and what the gate makes of it is not what these tests are about."""
MEASURE = {"cells": [{"batch_size": 1, "sequence_length": 16}], "seconds_per_cell": 0.2, "throughput_rows": 16}
FAILS = "evaluate-candidate.cpu-float"
WHY = f"{FAILS}: this step record has format 99, written by a newer modelmill"


def _recipe(folder: Path, require: str | list[str], targets: list[dict[str, str]] = LANES) -> Path:
    path = make_recipe(
        folder,
        targets=targets,
        retrain={"method": "none"},
        measure=MEASURE,
        gate=GATE,
        publish={"model": "small", "channel": "staging", "require": require},
    )
    value = yaml.safe_load(path.read_text("utf-8"))
    value["model"]["source"], value["data"]["source"] = f"file:{folder / 'model'}", f"file:{folder / 'rows'}"
    path.write_text(yaml.safe_dump(value), "utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's model and rows; in ``whole``, the store of a run in which both lanes passed. Read-only."""
    folder = tmp_path_factory.mktemp("lanes")
    make_checkpoint(folder / "model", "bert", labels=list(TOPICS))
    make_rows(folder / "rows")
    run_in_this_process(_recipe(folder, "all"), LocalStore(folder / "whole"))
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> RunDocument:
    (found,) = records.list_runs(LocalStore(folder / "whole"))
    return RunDocument.model_validate(found.document)


@pytest.fixture
def store(folder: Path, whole: RunDocument, tmp_path: Path) -> Path:
    """A store whose records a newer modelmill has rewritten for one task of one lane: this one cannot go on there."""
    shutil.copytree(folder / "whole", tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "registry")
    (row,) = (row for row in whole.steps if row.task == FAILS)
    record = tmp_path / "store" / "keys" / f"{row.key.removeprefix('sha256:')}.json"
    record.chmod(0o644)
    record.write_text(json.dumps({**json.loads(record.read_bytes()), "format": 99}), "utf-8")
    return tmp_path / "store"


def _described(folder: Path, store: Path, require: str | list[str], retries: int = 0) -> Described:
    fields = {"store": str(store), "backend": Backend.DOCKER, "mounts": [str(folder)], "retries": retries}
    return describe(Job(recipes.load(_recipe(folder, require)), Deployment.model_validate(fields)))


def _document(store: Path, run: str) -> RunDocument:
    record = records.read_run(open_store(str(store)), run)
    assert record is not None
    return RunDocument.model_validate(record.document)


def _check_promoted(document: RunDocument, whole: RunDocument) -> None:
    """The bundle of the other lane, which says what became of this one."""
    assert document.status is Status.PROMOTED
    assert list(document.targets) == ["cpu-int8"]
    assert list(document.unavailable) == ["cpu-float"]
    assert document.unavailable["cpu-float"].startswith(WHY)
    bundle = Path(str(document.bundle))
    assert list(verify(bundle).lanes) == ["cpu-int8"]
    evidence = json.loads((bundle / "evidence.json").read_bytes())
    assert (evidence["unavailable"], evidence["left_out"]) == (document.unavailable, {})
    said = "The lane cpu-float is unavailable, which says nothing of its model; something outside failed: "
    assert f"{said}`{WHY}" in (bundle / "README.md").read_text("utf-8")
    for page in (bundle / "report.html", Path(str(document.report))):
        assert said in page.read_text("utf-8")
    assert document.bundle_digest != whole.bundle_digest


def test_the_local_runner_publishes_the_other_lane_and_says_what_failed(
    folder: Path, whole: RunDocument, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = LocalStore(store)
    document = run_in_this_process(_recipe(folder, "any"), opened)
    _check_promoted(document, whole)
    print_run(document)
    assert "note:    The lane cpu-float is unavailable" in capsys.readouterr().out
    # The digest is of the lane that is there: the same bundle as where the recipe has no other.
    alone = run_in_this_process(_recipe(folder, "any", LANES[:1]), opened)
    assert alone.bundle_digest == document.bundle_digest


@pytest.mark.parametrize(("require", "asked"), [("all", "all"), (["cpu-float"], "cpu-float")])
def test_the_local_runner_publishes_nothing_without_a_lane_that_is_required(
    folder: Path, store: Path, require: str | list[str], asked: str
) -> None:
    opened = LocalStore(store)
    with pytest.raises(LaneError) as caught:
        run_in_this_process(_recipe(folder, require), opened)
    assert caught.value.exit_code == 5
    assert caught.value.what.startswith(f"the lane cpu-float is unavailable ({WHY}")
    assert caught.value.what.endswith(f": nothing is published, since publish.require is {asked}")
    assert registry.models(opened) == []
    failed = RunDocument.model_validate(records.list_runs(opened)[0].document)
    assert (failed.status, failed.error_class) == (Status.FAILED, "LaneError")
    assert "gate.cpu-int8" in [row.task for row in failed.steps], "the other lane was judged nevertheless"


def test_a_lane_that_nobody_requires_holds_nothing_up(folder: Path, whole: RunDocument, store: Path) -> None:
    _check_promoted(run_in_this_process(_recipe(folder, ["cpu-int8"]), LocalStore(store)), whole)


def test_containers_pass_it_on_to_the_end_of_the_lane(
    folder: Path, whole: RunDocument, store: Path, tmp_path: Path
) -> None:
    found = orchestrate(_described(folder, store, "any"), tmp_path, "night")
    assert found.errors == {}
    unavailable = [task for task, pointer in found.pointers.items() if pointer == "unavailable"]
    assert unavailable == [FAILS, "evaluate-smoke.cpu-float", "gate.cpu-float"]
    assert (found.pointers["decide"], found.pointers["finish"]) == ("pass", "promoted")
    document = _document(store, "night")
    _check_promoted(document, whole)
    # The record is whole again: the next run goes on there, and an unavailable lane was stored under no key.
    (row,) = (row for row in whole.steps if row.task == FAILS)
    shutil.copyfile(*(at / "keys" / f"{row.key[7:]}.json" for at in (folder / "whole", store)))
    again = orchestrate(_described(folder, store, "any"), tmp_path, "next")
    assert again.errors == {}
    assert _document(store, "next").unavailable == {}
    assert _document(store, "next").bundle_digest == whole.bundle_digest


def test_containers_end_with_5_and_publish_nothing_without_a_required_lane(
    folder: Path, store: Path, tmp_path: Path
) -> None:
    found = orchestrate(_described(folder, store, "all"), tmp_path, "night")
    assert (found.pointers["decide"], found.pointers["publish"]) == ("unavailable", None)
    assert list(found.errors) == ["finish"]
    document = _document(store, "night")
    with pytest.raises(LaneError, match=r"the lane cpu-float is unavailable \(evaluate-candidate") as caught:
        document.raise_error()
    assert caught.value.exit_code == 5
    assert registry.models(LocalStore(store)) == []


def test_only_the_last_attempt_gives_a_lane_up_and_a_person_may_begin_anew(
    folder: Path, store: Path, tmp_path: Path
) -> None:
    described = _described(folder, store, "any", retries=1)
    task = next(item for item in described.containers if item.id == FAILS)
    parts = [part for argument in task.arguments for part in argument]
    assert parts[parts.index("--attempts") + 1] == str(1 + task.retries) == "2"
    told: list[dict[str, Any]] = []
    for _ in range(4):
        found = orchestrate(described, tmp_path, "night")
        told.append({"failed": FAILS in found.errors, "gone": _document(store, "night").unavailable.keys()})
    assert [item["failed"] for item in told] == [True, False, True, False]
    assert [bool(item["gone"]) for item in told] == [False, True, False, True]


def test_kubeflow_runs_the_lane_to_its_end_without_numbers(
    folder: Path, whole: RunDocument, store: Path, tmp_path: Path
) -> None:
    backend = pytest.importorskip("kubeflow_backend", reason="kfp is not installed", exc_type=ImportError)
    compile_to(_described(folder, store, "any"), tmp_path / "line.yaml")
    found = backend.run_package(tmp_path / "line.yaml", tmp_path, "3f2c")
    assert found.errors == {}
    assert found.outputs["gate-cpu-float"] == {POINTER: "unavailable"}
    assert found.outputs["finish"][POINTER] == "promoted"
    _check_promoted(_document(store, "3f2c"), whole)
