from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lane_steps import make_rows, run_apply, run_choose
from modelmill.core.errors import DataError, ModelError
from modelmill.core.model import read_model

LaneOf = Callable[[str], Any]
# DistilBERT has a pre-classifier, ELECTRA and RoBERTa a dense layer in the head; RoBERTa has a second position table.
COUNTS = {
    "bert": {"Attention": 2, "Gather": 1, "Gemm": 2, "MatMul": 6},
    "roberta": {"Attention": 2, "Gather": 1, "Gemm": 2, "MatMul": 6},
    "distilbert": {"Attention": 2, "Gather": 1, "Gemm": 2, "MatMul": 6},
    "electra": {"Attention": 2, "Gather": 1, "Gemm": 2, "MatMul": 6},
}


def apply_scheme(lane: Any, here: Path, scheme: str, **settings: Any) -> dict[str, Any]:
    run_choose(lane.optimized, lane.rows, here / "choice", scheme=scheme, **settings)
    return run_apply(lane.optimized, here / "choice", lane.rows, here / "model")


def weights_of(directory: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(directory / "model.onnx").graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


@pytest.mark.parametrize("scheme", ["dynamic", "static"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "electra"])
def test_all_products_and_tables_become_int8_and_logits_stay_within_a_tenth(
    lane_of: LaneOf, tmp_path: Path, architecture: str, scheme: str
) -> None:
    lane = lane_of(architecture)
    facts = apply_scheme(lane, tmp_path, scheme)
    assert facts["quantized"] == {"model": COUNTS[architecture]}
    assert 0 < facts["deviation"]["relative_deviation"] < 0.1
    document = read_model(tmp_path / "model")
    assert (document.precision, document.facts["scheme"]) == ("int8", scheme)
    large = [array for array in weights_of(tmp_path / "model").values() if array.size > 4096]
    assert large
    assert all(array.dtype == np.int8 for array in large)


def test_weights_have_a_scale_for_each_channel_and_tables_one_for_each_row(lane_of: LaneOf, tmp_path: Path) -> None:
    apply_scheme(lane_of("bert"), tmp_path, "dynamic")
    arrays = weights_of(tmp_path / "model")
    # A processor without VNNI gets seven bits.
    largest = 63 if json.loads((tmp_path / "choice" / "choice.json").read_text("utf-8"))["reduce_range"] else 127
    for name, array in arrays.items():
        if name.endswith(".weight") and array.dtype == np.int8:
            assert arrays[name.replace(".weight", ".scale")].shape == (array.shape[1],)
            assert np.abs(array.astype(int)).max(axis=0).min() == largest
        if name.endswith(".table"):
            assert arrays[name.replace(".table", ".scale")].shape == (array.shape[0], 1)


def test_embeddings_stay_float32_when_asked(lane_of: LaneOf, tmp_path: Path) -> None:
    facts = apply_scheme(lane_of("bert"), tmp_path, "dynamic", embeddings=False)
    assert "Gather" not in facts["quantized"]["model"]


def test_another_process_on_one_processor_makes_the_same_bytes(lane_of: LaneOf, tmp_path: Path) -> None:
    lane = lane_of("bert")
    schemes = ("dynamic", "static")
    for scheme in schemes:
        (tmp_path / scheme).mkdir()
        apply_scheme(lane, tmp_path / scheme, scheme)
    script = (
        "import os, sys; from pathlib import Path; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from lane_steps import run_apply, run_optimize; a = [Path(item) for item in sys.argv[1:]]\n"
        "run_optimize(a[0], Path('optimized'))\n"
        "for at in a[2:]: run_apply(Path('optimized'), at / 'choice', a[1], Path(at.name))"
    )
    again = tmp_path / "again"
    again.mkdir()
    places = [lane.exported, lane.rows, *(tmp_path / scheme for scheme in schemes)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", script, *map(str, places)]
    subprocess.run(command, cwd=again, env=environment, check=True, capture_output=True)
    pairs = [(lane.optimized, again / "optimized"), *((tmp_path / item / "model", again / item) for item in schemes)]
    for first, second in pairs:
        for name in (*read_model(first).files(), "model.json"):
            assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.parametrize("count", [0, 7])
def test_too_few_rows_to_calibrate_on_are_refused(lane_of: LaneOf, tmp_path: Path, count: int) -> None:
    lane = lane_of("bert")
    run_choose(lane.optimized, lane.rows, tmp_path / "choice", scheme="static")
    rows = make_rows(tmp_path / "rows", count)
    with pytest.raises(DataError, match=f"{count} rows are too few"):
        run_apply(lane.optimized, tmp_path / "choice", rows, tmp_path / "model")


def test_rows_of_another_task_are_not_calibrated_on(lane_of: LaneOf, tmp_path: Path) -> None:
    lane = lane_of("bert")
    run_choose(lane.optimized, lane.rows, tmp_path / "choice", scheme="static")
    rows = make_rows(tmp_path / "rows", 20, task="token-classification")
    with pytest.raises(DataError, match="rows are for the task token-classification, and the model's is") as caught:
        run_apply(lane.optimized, tmp_path / "choice", rows, tmp_path / "model")
    assert caught.value.where == "data.calibrate"
    with pytest.raises(DataError, match="rows are for the task token-classification"):
        run_choose(lane.optimized, rows, tmp_path / "chosen")


@pytest.mark.parametrize("count", [0, 7])
def test_too_few_rows_end_a_search_that_could_only_calibrate_before_its_first_trial(
    lane_of: LaneOf, tmp_path: Path, count: int
) -> None:
    rows = make_rows(tmp_path / "rows", count)
    with pytest.raises(DataError, match=f"{count} rows are too few") as caught:
        run_choose(lane_of("bert").optimized, rows, tmp_path / "choice", scheme="static")
    assert "on onnxruntime also scheme: dynamic" in str(caught.value.fix)
    fp16 = {"runtime": "onnxruntime-cuda", "precisions": ["fp16"]}
    with pytest.raises(DataError, match="ranges of values need at least"):
        run_choose(lane_of("bert").exported, rows, tmp_path / "fp16", **fp16)
    # Where something else is allowed, it is what is chosen.
    assert run_choose(lane_of("bert").optimized, rows, tmp_path / "dynamic").scheme == "dynamic"


def test_a_graph_that_int8_breaks_is_refused(lane_of: LaneOf, tmp_path: Path) -> None:
    lane = lane_of("bert")
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in lane.optimized.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    graph = onnx.load(broken / "model.onnx")
    for tensor in graph.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if array.shape == (32, 64):
            array[0, :] = np.inf
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(graph, broken / "model.onnx")
    run_choose(broken, lane.rows, tmp_path / "choice", scheme="dynamic")
    with pytest.raises(ModelError, match="not finite"):
        run_apply(broken, tmp_path / "choice", lane.rows, tmp_path / "model")
