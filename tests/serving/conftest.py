"""A lane's artifacts as evaluate is given them, and the real server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from environments import triton_python
from lane_artifacts import lane_measurements, write_lane_measurements
from modelmill.core.model import read_model
from modelmill.core.predictions import read_predictions
from modelmill.core.progress import SilentProgress
from modelmill.core.smoke import ServingPlan
from modelmill.serving import repository
from modelmill.serving.server import VARIABLE, Installation, find, serve
from modelmill.steps.evaluate import contract as evaluate
from modelmill.steps.evaluate.run import candidate as run_candidate
from modelmill.steps.evaluate.smoke import link
from modelmill.targets.base import Runtime
from served_lane import NAME, TARGET, Served
from tiny_artifacts import random_rows, rows_artifact


@pytest.fixture(scope="session")
def installation() -> Installation:
    """The real Triton of ``.venv-triton``."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(VARIABLE, str(triton_python().parents[1]))
        found = find()
    assert found is not None
    return found


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory, quantized: Path) -> Mapping[str, Path]:
    """The tiny int8 classifier with rows, predictions and measurements. Read-only."""
    work = tmp_path_factory.mktemp("evaluated")
    rows = rows_artifact(work / "rows", random_rows(101))
    predictions = work / "predictions"
    predictions.mkdir()
    settings = evaluate.CandidateSettings(task="text-classification", runtime=Runtime.ONNXRUNTIME)
    inputs = evaluate.CandidateInputs(model=quantized, rows=rows)
    run_candidate(inputs, evaluate.CandidateOutputs(predictions=predictions), settings, SilentProgress())
    measurements = write_lane_measurements(work / "measurements", lane_measurements())
    return {"model": quantized, "rows": rows, "predictions": predictions, "measurements": measurements}


@pytest.fixture(scope="session")
def plan(evaluated: Mapping[str, Path]) -> ServingPlan:
    """How the tiny classifier is served."""
    neighbours = read_predictions(evaluated["predictions"])[0].neighbours
    document = read_model(evaluated["model"])
    found = repository.plan_of(document, NAME, "onnxruntime", lane_measurements(), neighbours)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def together(
    exported: Path, plan: ServingPlan, installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The tiny float32 classifier in a server that puts texts of several requests into one batch."""
    lane = tmp_path_factory.mktemp("together") / "lane"
    shared = plan.model_copy(update={"together": True})
    repository.write_files(lane, repository.files_of(read_model(exported), shared, TARGET))
    link(exported, lane)
    with serve(installation, lane / "serving" / TARGET, NAME) as address:
        yield Served(address, lane)
