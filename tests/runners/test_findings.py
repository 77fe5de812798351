"""What an orchestrator shows of a task, and where it is written."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import realistic_evidence
from environments import ROOT
from modelmill.core.errors import UsageError
from modelmill.core.progress import LineProgress, SilentProgress
from modelmill.recipe import Recipe, from_mapping
from modelmill.runners.confusion import MATRIX_LABELS, Matrix, matrix
from modelmill.runners.containers import LOG, Shown
from modelmill.runners.executor import artifact_path
from modelmill.runners.findings import Findings, metrics_of, of_run
from modelmill.runners.result import RunDocument, Status
from modelmill.runners.showing import shower


def _recipe(*, texts: bool) -> Recipe:
    value = yaml.safe_load((ROOT / "pipelines" / "recipes" / "demo.yaml").read_text("utf-8"))
    value["publish"]["texts"] = texts
    return from_mapping(value, [], "demo")


@pytest.mark.parametrize("texts", [False, True])
def test_a_text_of_the_data_is_shown_only_where_the_recipe_says_so(texts: bool) -> None:
    lane = realistic_evidence.lane("cpu-int8", seed=1)
    spoken = [row.text for row in lane.disagreements if row.text]
    assert spoken
    document = RunDocument(
        run="r", recipe="demo", recipe_digest="sha256:0", status=Status.REFUSED, started_at="2026-11-22T10:00:00Z"
    )
    page = of_run(document, [lane], _recipe(texts=texts)).page
    assert page is not None
    assert ("I do not know what to do" in page) is texts


def test_metrics_are_numbers_under_names_that_say_their_unit() -> None:
    lane = realistic_evidence.lane("cpu-int8", seed=1)
    found = metrics_of(lane)
    assert found["accuracy_baseline"] == lane.baseline
    assert (found["drop_points_low"], found["drop_points_high"]) == lane.drop_points_ci
    assert (found["drop_vs_champion_points"], found["drop_vs_champion_points_high"]) == (0.26, 0.58)
    assert "drop_vs_reference_points" not in found, "its bundle is gone"
    cell = lane.measurements.latency[0]
    assert found[f"speedup_batch_{cell.batch_size}_length_{cell.sequence_length}_low"] == cell.speedup_ci[0]
    assert found["verdict"] == lane.verdict.value
    assert {name for name, value in found.items() if isinstance(value, str)} == {"verdict"}


def test_a_matrix_counts_every_row_and_right_answers_stand_on_its_diagonal() -> None:
    found = matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]), ["a", "b", "c"])
    assert found == Matrix(("a", "b", "c"), ((1, 1, 0), (0, 1, 0), (0, 0, 1)))


def test_of_many_classes_those_with_the_most_errors_are_shown_and_no_row_is_lost() -> None:
    random = np.random.default_rng(0)
    reference = random.integers(0, 150, 5000)
    predicted = np.where(random.random(5000) < 0.9, reference, random.integers(0, 150, 5000))
    predicted[reference == 77] = 78
    found = matrix(reference, predicted, [f"class {number}" for number in range(150)])
    assert len(found.labels) == MATRIX_LABELS
    assert {"class 77", "class 78"} <= set(found.labels)
    assert found.labels[-1] == f"({150 - MATRIX_LABELS + 1} other classes)"
    assert sum(map(sum, found.cells)) == 5000
    at, said = found.labels.index("class 77"), found.labels.index("class 78")
    assert found.cells[at][said] == int((reference == 77).sum())


def _executor_input(folder: Path, uri: str, **artifact: Any) -> str:
    kinds = {kind.value: {"artifacts": [{"name": kind.value, "uri": uri, **artifact}]} for kind in Shown}
    return json.dumps({"inputs": {}, "outputs": {"artifacts": kinds, "outputFile": str(folder / "out" / "told.json")}})


def test_kubeflow_accepts_what_it_is_told(tmp_path: Path) -> None:
    utils = pytest.importorskip("kfp.local.executor_output_utils")
    dsl = pytest.importorskip("kfp.dsl")
    found = Findings({"verdict": "pass", "drop_points": 0.5}, Matrix(("a", "b"), ((1, 2), (3, 4))), "<p>ü</p>")
    given = _executor_input(tmp_path, str(tmp_path / "deep" / "report"))
    show = shower(list(Shown), given, SilentProgress())
    assert show is not None
    show(found)
    told = utils.load_executor_output(str(tmp_path / "out" / "told.json"))
    (metrics,) = told.artifacts["metrics"].artifacts
    assert dict(metrics.metadata) == found.metrics
    expected = dsl.ClassificationMetrics()
    expected.log_confusion_matrix(["a", "b"], [[1, 2], [3, 4]])
    (confusion,) = told.artifacts["confusion"].artifacts
    assert utils.pb2_struct_to_python(confusion.metadata) == expected.metadata
    assert (tmp_path / "deep" / "report").read_text("utf-8") == "<p>ü</p>"


def test_a_page_is_written_where_kubeflow_takes_it_from() -> None:
    dsl = pytest.importorskip("kfp.dsl")
    for uri in ("s3://bucket/v2/report", "minio://mlpipeline/v2/report", "gs://bucket/report", "/tmp/report"):
        assert artifact_path({"name": "report", "uri": uri}) == Path(dsl.HTML(uri=uri).path)
    assert artifact_path({"uri": "s3://bucket/report", "customPath": "/work/x"}) == Path("/work/x")


def test_what_a_task_has_not_and_what_was_not_asked_for_is_left_out(tmp_path: Path) -> None:
    show = shower([Shown.CONFUSION], _executor_input(tmp_path, str(tmp_path / "x")), SilentProgress())
    assert show is not None
    show(Findings({"drop_points": 0.5}))
    told = json.loads((tmp_path / "out" / "told.json").read_text("utf-8"))
    assert all(not item["artifacts"][0]["metadata"] for item in told["artifacts"].values())


def test_a_log_gets_the_numbers_in_one_line() -> None:
    log = io.StringIO()
    show = shower([Shown.METRICS, Shown.CONFUSION], LOG, LineProgress(log, "gate: "))
    assert show is not None
    show(Findings({"drop_points": 0.5}, Matrix(("a",), ((1,),)), "<p></p>"))
    assert log.getvalue() == 'gate: metrics: {"drop_points": 0.5}\n'
    assert shower([], "whatever", SilentProgress()) is None


@pytest.mark.parametrize("place", ["here", "{", "[]", "{}", '{"outputs": {}}', '{"outputs": 3}'])
def test_a_place_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(UsageError, match="executor input"):
        shower([Shown.METRICS], place, SilentProgress())
