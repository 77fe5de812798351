"""`modelmill run` killed at many moments, and started twice at once: the real command, in processes of its own."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelmill.core.local_store import LocalStore
from modelmill.runners.result import RunDocument
from whole_line import make_recipe, reproducible_digests, run_in_this_process

TASKS = [
    "fetch", "retrain", "evaluate-baseline", "export.cpu-int8", "optimize.cpu-int8",
    "calibrate-quantize-choose.cpu-int8", "calibrate-quantize.cpu-int8", "evaluate-candidate.cpu-int8",
    "evaluate-measure.cpu-int8", "evaluate-smoke.cpu-int8", "gate.cpu-int8", "publish",
]  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("interrupted"))


@pytest.fixture(scope="module")
def unbroken(recipe: Path) -> RunDocument:
    """What the recipe gives when nothing interrupts it."""
    return run_in_this_process(recipe, LocalStore(recipe.parent / "unbroken"))


def _start(recipe: Path, store: Path, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "modelmill.cli.main", "run", str(recipe), "--store", str(store), "--json"]
    environment = {**os.environ, **variables}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)


def _finish(process: subprocess.Popen[str]) -> RunDocument:
    output, errors = process.communicate(timeout=800)
    assert process.returncode == 0, errors
    document: dict[str, Any] = json.loads(output)
    return RunDocument.model_validate({"format": 1, **document})


def _kill_in(task: str, recipe: Path, store: Path, delay: float) -> None:
    """Start a run and kill it with SIGKILL ``delay`` seconds after ``task`` began."""
    process = _start(recipe, store)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"{task}: running"):
            time.sleep(delay)
            break
        assert "error" not in line, line
    process.send_signal(signal.SIGKILL)
    process.communicate()


def _sweep(tasks: list[str], longest: float, recipe: Path, store: Path, unbroken: RunDocument) -> RunDocument:
    draw = random.Random(7)
    for task in tasks:
        _kill_in(task, recipe, store, draw.uniform(0, longest))
    document = _finish(_start(recipe, store))
    assert reproducible_digests(document) == reproducible_digests(unbroken)
    assert document.bundle_digest == unbroken.bundle_digest
    return document


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_in_training_and_in_publishing_ends_in_the_same_bytes(
    recipe: Path, tmp_path: Path, unbroken: RunDocument
) -> None:
    store = tmp_path / "store"
    document = _sweep(["retrain", "publish"], 4.0, recipe, store, unbroken)
    finished_before = [row.name for row in document.steps if row.cached]
    assert finished_before[:2] == ["fetch", "retrain"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_killed_in_every_task_ends_in_the_same_bytes(recipe: Path, tmp_path: Path, unbroken: RunDocument) -> None:
    _sweep(TASKS + TASKS, 5.0, recipe, tmp_path / "store", unbroken)


def test_a_killed_run_takes_its_step_with_it(recipe: Path, tmp_path: Path) -> None:
    process = _start(recipe, tmp_path / "store")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("fetch: running"):
            break
    deadline = time.monotonic() + 20
    while not (children := _children(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 20
    while any(_alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(child) for child in children)


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_runs_at_once_on_one_store_both_end_well_and_agree(
    recipe: Path, tmp_path: Path, unbroken: RunDocument
) -> None:
    store = tmp_path / "store"
    processes = [_start(recipe, store), _start(recipe, store)]
    one, two = (_finish(process) for process in processes)
    assert [row.digest for row in one.steps] == [row.digest for row in two.steps]
    assert one.bundle == two.bundle
    assert reproducible_digests(one) == reproducible_digests(unbroken)


def test_sigterm_is_taken_for_ctrl_c_ends_with_143_and_leaves_no_folder(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    process = _start(recipe, tmp_path / "store", TMPDIR=str(tmp_path / "tmp"))
    assert process.stderr is not None
    # Said by the loop of the training, when its step has made its folder.
    assert any("epoch 1 of" in line for line in process.stderr)
    assert list((tmp_path / "tmp").rglob("checkpoint"))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "interrupted" in errors
    assert list((tmp_path / "tmp").glob("modelmill-*")) == []
    listed = [json.loads(file.read_bytes()) for file in (tmp_path / "store" / "runs").glob("*.json")]
    assert [record["status"] for record in listed] == ["interrupted"]
