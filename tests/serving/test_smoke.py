"""The smoke test in a real Triton: what agrees, what does not, what does not load, and what is not there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from environments import triton_python
from modelmill.core.errors import DeploymentError
from modelmill.core.predictions import read_predictions, write_predictions
from modelmill.core.progress import SilentProgress
from modelmill.core.smoke import Smoke, SmokeState
from modelmill.serving.server import VARIABLE, Installation
from modelmill.steps.evaluate import contract as evaluate
from modelmill.steps.evaluate.contract import SmokeMode
from modelmill.steps.evaluate.resolve import resolve
from modelmill.steps.evaluate.run import smoke as run_smoke
from modelmill.targets.base import Runtime

SETTINGS = evaluate.SmokeSettings(
    target="cpu-int8", name="banking", runtime=Runtime.ONNXRUNTIME, sequence_length=32, seconds=0.1
)


def tried(artifacts: Mapping[str, Path], work: Path, settings: evaluate.SmokeSettings = SETTINGS) -> Smoke:
    """The smoke test of a lane, with what the environment names."""
    output = work / "smoke"
    output.mkdir()
    given = resolve(settings, SilentProgress())
    run_smoke(evaluate.SmokeInputs(**artifacts), evaluate.SmokeOutputs(smoke=output), given, SilentProgress())
    return Smoke.model_validate_json((output / "smoke.json").read_bytes())


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, installation: Installation) -> Installation:
    monkeypatch.setenv(VARIABLE, str(installation.folder))
    return installation


def test_the_servers_answers_are_the_evaluations_in_its_own_batches(
    evaluated: Mapping[str, Path], named: Installation, tmp_path: Path
) -> None:
    smoke = tried(evaluated, tmp_path)
    assert (smoke.state, smoke.rows, smoke.differing) == (SmokeState.ANSWERED, 101, 0), smoke.words
    # Dynamic int8: other batches than the evaluation's would move the scores.
    assert smoke.largest_change is not None
    assert smoke.largest_change < 1e-6
    assert smoke.server is not None
    assert smoke.server.startswith("triton 2.")
    assert smoke.packages == dict(named.packages)
    latency = smoke.latency
    assert latency is not None
    assert latency.sequence_length == 32
    assert latency.p95_ratio_ci[0] <= latency.p95_ratio <= latency.p95_ratio_ci[1]
    assert len(latency.samples_ms["served"]) == len(latency.samples_ms["in_process"]) >= 24


def test_one_prediction_that_is_not_the_evaluations_is_found_and_named(
    evaluated: Mapping[str, Path], named: Installation, tmp_path: Path
) -> None:
    document, arrays = read_predictions(evaluated["predictions"])
    changed = arrays["predicted"].copy()
    changed[7] = (changed[7] + 1) % 3
    other = tmp_path / "predictions"
    other.mkdir()
    write_predictions(other, document, {**arrays, "predicted": changed})
    smoke = tried({**evaluated, "predictions": other}, tmp_path)
    assert (smoke.state, smoke.differing) == (SmokeState.ANSWERED, 1)
    assert [row.row for row in smoke.differences] == ["rows.jsonl:8"]
    assert smoke.differences[0].evaluated == document.labels[changed[7]]
    assert smoke.differences[0].served == document.labels[arrays["predicted"][7]]


def test_a_model_that_does_not_load_is_a_failed_smoke_test_with_the_servers_words(
    evaluated: Mapping[str, Path], named: Installation, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(evaluated["model"], model)
    (model / "tokenizer.json").write_text("{}")
    smoke = tried({**evaluated, "model": model}, tmp_path)
    assert smoke.state is SmokeState.FAILED
    assert "does not load" in smoke.words
    assert "Model missing" in smoke.words
    assert smoke.rows == 0


def test_where_no_server_is_named_the_evidence_says_so(
    evaluated: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    smoke = tried(evaluated, tmp_path)
    assert smoke.state is SmokeState.NOT_RUN
    assert VARIABLE in smoke.words
    assert smoke.plan is not None
    assert sorted(smoke.files) == [
        "serving/cpu-int8/banking/1/__pycache__",
        "serving/cpu-int8/banking/1/model.py",
        "serving/cpu-int8/banking/config.pbtxt",
    ]


def test_a_recipe_that_leaves_it_out_starts_no_server(
    evaluated: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere")
    smoke = tried(evaluated, tmp_path, SETTINGS.model_copy(update={"mode": SmokeMode.OFF}))
    assert smoke.state is SmokeState.NOT_RUN
    assert "publish.smoke" in smoke.words


def test_a_required_smoke_test_without_a_server_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    required = SETTINGS.model_copy(update={"mode": SmokeMode.REQUIRED})
    with pytest.raises(DeploymentError, match=rf"{VARIABLE} names no server here\n.*publish.smoke\n.*install-triton"):
        resolve(required, SilentProgress())


@pytest.mark.parametrize("words", ["names no Python environment", "has no nvidia-pytriton"])
def test_a_variable_that_names_no_server_is_told(words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if "pytriton" in words:
        (tmp_path / "lib/python3.11/site-packages").mkdir(parents=True)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(DeploymentError, match=words):
        resolve(SETTINGS, SilentProgress())


def test_a_server_that_ends_at_once_is_a_wrong_deployment_with_its_last_words(
    evaluated: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = triton_python().parents[1]
    site = tmp_path / "env/lib/python3.11/site-packages"
    shutil.copytree(
        folder / "lib/python3.11/site-packages/pytriton/tritonserver/backends", site / "pytriton/tritonserver/backends"
    )
    stub = site / "pytriton/tritonserver/python_backend_stubs/3.11/triton_python_backend_stub"
    stub.parent.mkdir(parents=True)
    stub.write_text("")
    for found in (folder / "lib/python3.11/site-packages").glob("*.dist-info"):
        if found.name.startswith(("nvidia_pytriton", "numpy", "onnxruntime", "tokenizers")):
            (site / found.name).symlink_to(found)
    (tmp_path / "env/bin").mkdir()
    (tmp_path / "env/bin/python").symlink_to(triton_python())
    broken = site / "pytriton/tritonserver/bin/tritonserver"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho cannot open shared object file >&2\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "env"))
    with pytest.raises(DeploymentError, match="ended with code 127: cannot open shared object file"):
        tried(evaluated, tmp_path)


def test_the_key_names_the_server_and_the_code(monkeypatch: pytest.MonkeyPatch, named: Installation) -> None:
    with_one = resolve(SETTINGS, SilentProgress())
    monkeypatch.delenv(VARIABLE)
    without = resolve(SETTINGS, SilentProgress())
    assert with_one.server == named.words
    assert without.server is None
    assert with_one.code == without.code
    assert len(str(with_one.code)) == 64
