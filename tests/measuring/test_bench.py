from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelmill.core import hardware
from modelmill.core.errors import UsageError
from modelmill.core.evidence import Cell, Difference
from modelmill.core.progress import SilentProgress
from modelmill.measuring.bench import Subject, bench
from modelmill.measuring.bench_result import BenchResult
from modelmill.measuring.cells import fit_cells
from tiny_artifacts import random_rows

CELLS = [Cell(batch_size=1, sequence_length=16), Cell(batch_size=2, sequence_length=128)]


def run_bench(
    subjects: list[Subject], cells: list[Cell] = CELLS, against: str | None = None, **asked: Any
) -> BenchResult:
    given = {"processes": 1, "seconds": 0.5, **asked}
    return bench(subjects, cells, threads=1, seed=0, progress=SilentProgress(), against=against, **given)


@pytest.fixture(scope="module")
def result(exported: Path, tiny_bert: Path) -> BenchResult:
    subjects = [Subject("model", exported), Subject("copy", exported), Subject("pytorch", tiny_bert)]
    return run_bench(subjects, against="pytorch", texts=random_rows(60), core_hour=0.05)


def test_every_model_stands_in_every_cell_against_the_reference(result: BenchResult) -> None:
    assert [(cell.batch_size, cell.sequence_length) for cell in result.cells] == [(1, 16), (2, 64)]
    for cell in result.cells:
        rows = {row.name: row for row in cell.rows}
        assert list(rows) == ["model", "copy", "pytorch"]
        assert rows["pytorch"].speedup == 1.0
        assert rows["pytorch"].difference is None
        for row in cell.rows:
            assert row.ms_p50 <= row.ms_p95 <= row.ms_p99
            assert row.speedup == pytest.approx(rows["pytorch"].ms_p50 / row.ms_p50, rel=0.01)
            assert row.speedup_ci[0] <= row.speedup <= row.speedup_ci[1]


def test_onnxruntime_is_called_faster_than_eager_pytorch_on_a_tiny_model(result: BenchResult) -> None:
    rows = {row.name: row for row in result.cells[0].rows}
    assert rows["model"].difference is Difference.FASTER
    assert rows["model"].speedup > 1.5


def test_what_was_timed_on_what_is_told(result: BenchResult, exported: Path, tiny_bert: Path) -> None:
    told = {item.name: (item.runs_on, item.precision, item.size_bytes) for item in result.subjects}
    assert told["model"] == ("onnxruntime", "float32", (exported / "model.onnx").stat().st_size)
    assert told["pytorch"] == ("pytorch", "float32", (tiny_bert / "model.safetensors").stat().st_size)
    assert result.against == "pytorch"
    assert result.threads == 1
    assert result.hardware_class == hardware.cpu().hardware_class
    assert result.notes == ["batch 2, length 128 is measured at length 64, the model's maximum"]


def test_each_model_is_weighed_alone_and_only_pytorch_takes_torchs_memory(result: BenchResult) -> None:
    told = {item.name: item for item in result.subjects}
    for item in told.values():
        assert 0 < item.first_answer_seconds < item.load_seconds < 30
    assert 20e6 < told["model"].peak_rss_bytes < 160e6
    assert told["pytorch"].peak_rss_bytes > 1.5 * told["model"].peak_rss_bytes


def test_texts_are_timed_at_their_real_lengths_in_batches_and_one_at_a_time(result: BenchResult) -> None:
    texts = result.texts
    assert texts is not None
    assert (texts.texts, texts.passes >= 1) == (60, True)
    rows = {row.name: row for row in texts.rows}
    rate = rows["model"].texts_per_second
    assert rows["model"].speedup == pytest.approx(rate / rows["pytorch"].texts_per_second, rel=0.01)
    low, high = rows["model"].texts_per_second_ci
    assert low <= rate <= high
    # One text a call: what batches of like length gain is not in it.
    singly = {row.name: row for row in texts.one_at_a_time.rows}
    assert singly["model"].ms_p50 <= singly["model"].ms_p95 <= singly["model"].ms_p99
    assert singly["pytorch"].difference is None
    assert 1000 / singly["model"].ms_p50 < rate


def test_a_millions_cost_is_the_cores_time_at_their_price(result: BenchResult) -> None:
    assert result.texts is not None
    row = result.texts.rows[0]
    assert row.cost_per_million == pytest.approx(1e6 / row.texts_per_second / 3600 * result.threads * 0.05)
    assert row.cost_per_million_ci is not None
    assert row.cost_per_million_ci[0] <= row.cost_per_million <= row.cost_per_million_ci[1]


def test_the_result_survives_json(result: BenchResult) -> None:
    assert BenchResult.model_validate_json(result.model_dump_json()) == result


def test_the_same_model_twice_differs_by_noise(exported: Path) -> None:
    found = run_bench([Subject("one", exported), Subject("two", exported)], CELLS[:1])
    assert found.against == "one"
    assert found.cells[0].rows[1].difference is Difference.WITHIN_NOISE


def test_a_model_alone_is_timed_against_itself(exported: Path) -> None:
    found = run_bench([Subject("one", exported)], CELLS[:1])
    low, high = found.cells[0].noise_ratio_ci
    assert 0 < low <= high
    assert [row.name for row in found.cells[0].rows] == ["one"]


def test_wrong_arguments_are_named(exported: Path, tiny_bert: Path) -> None:
    one = Subject("one", exported)
    with pytest.raises(UsageError, match="two models have one name: one, one"):
        run_bench([one, one])
    with pytest.raises(UsageError, match="no model to time"):
        run_bench([])
    with pytest.raises(UsageError, match="no model 'pytorch' to time against"):
        run_bench([one], against="pytorch")
    with pytest.raises(UsageError, match="task of the checkpoint alone is not known"):
        run_bench([Subject("alone", tiny_bert)])
    with pytest.raises(UsageError, match="no cell"):
        fit_cells([], 64)


def test_cells_that_become_equal_are_measured_once_and_the_first_stays_first() -> None:
    cells = [Cell(batch_size=1, sequence_length=n) for n in (128, 16, 512)]
    fitted, notes = fit_cells(cells, 64)
    assert [cell.sequence_length for cell in fitted] == [64, 16]
    assert len(notes) == 2
