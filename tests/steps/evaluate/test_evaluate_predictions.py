from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modelmill.core import manifest
from modelmill.core.contract import Report
from modelmill.core.errors import DataError, ModelError
from modelmill.core.predictions import Predictions, read_predictions
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import Row, read_rows
from modelmill.steps.evaluate import contract
from modelmill.steps.evaluate.run import baseline, candidate
from modelmill.targets.base import Runtime
from modelmill.targets.pytorch import load_checkpoint
from modelmill.tasks import registry
from tiny_artifacts import random_rows, rows_artifact

TASK = "text-classification"


def run_baseline(checkpoint: Path, rows: Path, directory: Path) -> Report:
    directory.mkdir()
    inputs = contract.BaselineInputs(checkpoint=checkpoint, rows=rows)
    outputs = contract.BaselineOutputs(predictions=directory)
    return baseline(inputs, outputs, contract.BaselineSettings(task=TASK), SilentProgress())


def run_candidate(model: Path, rows: Path, directory: Path) -> Report:
    directory.mkdir()
    inputs = contract.CandidateInputs(model=model, rows=rows)
    outputs = contract.CandidateOutputs(predictions=directory)
    settings = contract.CandidateSettings(task=TASK, runtime=Runtime.ONNXRUNTIME)
    return candidate(inputs, outputs, settings, SilentProgress())


def documents(directory: Path) -> tuple[Predictions, dict[str, np.ndarray]]:
    return read_predictions(directory)


@pytest.fixture(scope="module")
def of_baseline(tiny_bert: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("answers") / "baseline"
    run_baseline(tiny_bert, rows, directory)
    return directory


def test_logits_are_the_models_own_in_the_order_of_the_rows(of_baseline: Path, tiny_bert: Path, rows: Path) -> None:
    model, processor = load_checkpoint(tiny_bert, registry.get(TASK))
    document, arrays = documents(of_baseline)
    texts = [row["text"] for row in read_rows(rows)]
    for index in (0, 1, 50, 100):
        encoded = processor(texts[index], truncation=True, max_length=64, return_tensors="pt")
        alone = model(**encoded).logits.detach().numpy()[0]
        assert arrays["outputs"][index] == pytest.approx(alone, abs=1e-5)
    assert arrays["outputs"].dtype == np.float32
    assert document.count == 101


def test_metrics_are_those_of_the_arrays(of_baseline: Path, rows: Path) -> None:
    document, arrays = documents(of_baseline)
    assert np.array_equal(arrays["predicted"], arrays["outputs"].argmax(axis=1))
    assert np.array_equal(arrays["reference"], np.arange(101) % 3)
    right = arrays["predicted"] == arrays["reference"]
    assert document.metrics["accuracy"] == pytest.approx(right.mean())
    per_class = document.metrics["per_class"]
    assert per_class == pytest.approx({name: right[i::3].mean() for i, name in enumerate(["alpha", "beta", "gamma"])})
    assert 0 <= document.metrics["macro_f1"] <= 1  # type: ignore[operator]
    assert document.labels == ["alpha", "beta", "gamma"]


def test_predictions_name_the_rows_they_are_of(of_baseline: Path, rows: Path) -> None:
    document, _ = documents(of_baseline)
    assert document.rows == manifest.build(rows, "rows").digest


def test_the_exported_model_says_what_the_checkpoint_says(
    of_baseline: Path, exported: Path, rows: Path, tmp_path: Path
) -> None:
    run_candidate(exported, rows, tmp_path / "candidate")
    document, arrays = documents(tmp_path / "candidate")
    expected, reference = documents(of_baseline)
    assert arrays["outputs"] == pytest.approx(reference["outputs"], abs=1e-5)
    assert np.array_equal(arrays["predicted"], reference["predicted"])
    assert document.rows == expected.rows
    assert document.metrics == expected.metrics


def test_predicting_again_gives_the_same_bytes_on_any_number_of_threads(
    quantized: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr("modelmill.core.hardware.threads", lambda threads=threads: threads)
        directory = tmp_path / str(threads)
        run_candidate(quantized, rows, directory)
        digests.add(manifest.build(directory, "predictions").digest)
    assert len(digests) == 1


def test_a_dynamic_int8_models_outputs_move_with_their_neighbours_and_a_float_models_do_not(
    quantized: Path, exported: Path, of_baseline: Path, rows: Path, tmp_path: Path
) -> None:
    run_candidate(exported, rows, tmp_path / "float")
    run_candidate(quantized, rows, tmp_path / "int8")
    (of_float, _), (of_int8, arrays) = documents(tmp_path / "float"), documents(tmp_path / "int8")
    assert of_float.neighbours is not None
    assert of_int8.neighbours is not None
    assert of_float.neighbours.rows == of_int8.neighbours.rows == 101
    assert of_float.neighbours.flips == 0
    assert max(of_float.neighbours.alone.largest, of_float.neighbours.mixed.largest) < 1e-5
    assert of_int8.neighbours.mixed.largest > 1e-4
    assert of_int8.neighbours.mixed.median <= of_int8.neighbours.mixed.largest < np.abs(arrays["outputs"]).max()
    assert documents(of_baseline)[0].neighbours is None


def test_the_artifact_holds_no_time(of_baseline: Path) -> None:
    assert {file.name for file in of_baseline.iterdir()} == {
        "predictions.json",
        "outputs.npy",
        "predicted.npy",
        "reference.npy",
    }
    assert set(json.loads((of_baseline / "predictions.json").read_text())) == {
        "format", "task", "rows", "count", "labels", "metrics", "neighbours", "arrays", "served",
    }  # fmt: skip


def test_the_report_tells_the_metrics(tiny_bert: Path, rows: Path, tmp_path: Path) -> None:
    facts = run_baseline(tiny_bert, rows, tmp_path / "answers").facts
    document, _ = documents(tmp_path / "answers")
    assert facts["accuracy"] == document.metrics["accuracy"]
    assert facts["rows"] == 101


def with_one_label(rows: list[Row], label: str) -> list[Row]:
    return [*rows[:7], {**rows[7], "label": label}, *rows[8:]]


def test_a_label_that_the_model_does_not_know_is_named_with_its_row(
    tiny_bert: Path, exported: Path, tmp_path: Path
) -> None:
    rows = rows_artifact(tmp_path / "rows", with_one_label(random_rows(10), "delta"))
    for run, model in ((run_baseline, tiny_bert), (run_candidate, exported)):
        with pytest.raises(
            DataError, match="'delta' of an evaluation row is not one of the model's 3 labels"
        ) as caught:
            run(model, rows, tmp_path / model.name)
        assert caught.value.where == "rows.jsonl:8: label"
        assert caught.value.fix


def test_no_rows_and_rows_of_another_task_are_refused(exported: Path, tmp_path: Path) -> None:
    empty = rows_artifact(tmp_path / "empty", [])
    with pytest.raises(DataError, match="no evaluation rows"):
        run_candidate(exported, empty, tmp_path / "one")
    other = rows_artifact(tmp_path / "other", random_rows(4))
    document = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**document, "task": "question-answering"}))
    with pytest.raises(DataError, match="for the task question-answering, and the model's is text-classification"):
        run_candidate(exported, other, tmp_path / "two")


def test_a_directory_that_is_no_model_is_named(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no model\.json"):
        run_candidate(tmp_path / "empty", rows, tmp_path / "answers")
