from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelmill.core import hardware
from modelmill.core.errors import HardwareError
from modelmill.core.evidence import Cell, Difference, Measurements
from modelmill.core.model import MicroBatching, read_model, write_model
from modelmill.core.progress import SilentProgress
from modelmill.measuring.timing_asks import TimedModel
from modelmill.steps.evaluate import contract
from modelmill.steps.evaluate.measurements import timed_models
from modelmill.steps.evaluate.run import measure
from modelmill.targets.base import Runtime

CELLS = [Cell(batch_size=1, sequence_length=16), Cell(batch_size=4, sequence_length=512)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On two threads of a loaded machine PyTorch's wait for each other, 3 to 500 ms a call: no test of ratios."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "threads", lambda: 1)
        yield


def run_measure(
    checkpoint: Path, exported: Path, candidate: Path, rows: Path, directory: Path, **changes: object
) -> Measurements:
    directory.mkdir()
    inputs = contract.MeasureInputs(
        checkpoint=checkpoint, exported=exported, optimized=exported, candidate=candidate, rows=rows
    )
    settings = contract.MeasureSettings.model_validate(
        {
            "task": "text-classification",
            "runtime": Runtime.ONNXRUNTIME,
            "cells": CELLS,
            "seconds_per_cell": 1.0,
            "processes": 1,
            "throughput_rows": 40,
            **changes,
        }
    )
    measure(inputs, contract.MeasureOutputs(measurements=directory), settings, SilentProgress())
    return Measurements.model_validate_json((directory / "measurements.json").read_bytes())


@pytest.fixture(scope="module")
def measured(
    tiny_bert: Path, exported: Path, quantized: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory
) -> Measurements:
    directory = tmp_path_factory.mktemp("measured") / "measurements"
    return run_measure(tiny_bert, exported, quantized, rows, directory)


def test_a_ratio_is_of_the_samples_that_are_kept(measured: Measurements) -> None:
    cell = measured.latency[0]
    medians = {name: float(np.median(values)) for name, values in cell.samples_ms.items()}
    assert set(medians) == {"baseline", "unquantized", "candidate"}
    assert len({len(values) for values in cell.samples_ms.values()}) == 1
    assert cell.speedup == pytest.approx(medians["baseline"] / medians["candidate"], rel=0.01)
    assert cell.gain_over_unquantized == pytest.approx(medians["unquantized"] / medians["candidate"], rel=0.01)
    assert cell.speedup_ci[0] <= cell.speedup <= cell.speedup_ci[1]
    assert cell.baseline_ms_p50 <= cell.baseline_ms_p95


def test_onnxruntime_beats_eager_pytorch_on_a_tiny_model(measured: Measurements) -> None:
    # Two layers of 32 units: eager PyTorch spends its time between operators, onnxruntime does not.
    cell = measured.latency[0]
    assert cell.speedup > 1.5
    assert cell.speedup_difference is Difference.FASTER


def test_a_cell_longer_than_the_model_is_cut_and_said_so(measured: Measurements) -> None:
    assert [(cell.batch_size, cell.sequence_length) for cell in measured.latency] == [(1, 16), (4, 64)]
    assert measured.notes == ["batch 4, length 512 is measured at length 64, the model's maximum"]


def test_throughput_is_of_whole_passes_over_real_texts(measured: Measurements) -> None:
    found = measured.throughput
    assert found is not None
    assert found.texts == 40
    assert found.passes is not None
    assert found.passes >= 1
    assert found.speedup == pytest.approx(found.candidate_texts_per_second / found.baseline_texts_per_second, rel=0.01)


def test_single_texts_are_timed_at_their_real_lengths(measured: Measurements) -> None:
    found = measured.one_text
    assert found is not None
    assert found.texts == 40
    for model in ("baseline", "unquantized", "candidate"):
        p50, p95, p99 = (getattr(found, f"{model}_ms_p{percent}") for percent in (50, 95, 99))
        assert 0 < p50 <= p95 <= p99
    assert found.speedup == pytest.approx(found.baseline_ms_p50 / found.candidate_ms_p50, rel=0.01)
    assert found.gain_over_unquantized == pytest.approx(found.unquantized_ms_p50 / found.candidate_ms_p50, rel=0.01)
    assert found.speedup_ci[0] <= found.speedup <= found.speedup_ci[1]
    # As in the cells: eager PyTorch spends its time between the operators of so small a model.
    assert found.speedup > 1.5
    assert found.speedup_difference is Difference.FASTER


def test_fresh_processes_share_the_time_and_each_ones_timings_are_kept(
    tiny_bert: Path, exported: Path, quantized: Path, rows: Path, tmp_path: Path
) -> None:
    found = run_measure(
        tiny_bert, exported, quantized, rows, tmp_path / "out", cells=CELLS[:1], processes=3, seconds_per_cell=0.9
    )
    cell = found.latency[0]
    assert found.processes == len(cell.samples_each) == 3
    parts = {
        name: np.split(np.asarray(values), np.cumsum(cell.samples_each)[:-1])
        for name, values in cell.samples_ms.items()
    }
    medians = {name: np.log([float(np.median(part)) for part in of]) for name, of in parts.items()}
    ratios = medians["baseline"] - medians["candidate"]
    assert cell.speedup == pytest.approx(math.exp(ratios.mean()), rel=0.01)
    assert cell.speedup == pytest.approx(cell.baseline_ms_p50 / cell.candidate_ms_p50, rel=0.01)
    # Student's interval of three: 4.30 standard errors.
    reach = 4.303 * ratios.std(ddof=1) / math.sqrt(3)
    assert cell.speedup_ci[0] <= cell.speedup * math.exp(-reach) * 1.01
    assert cell.speedup_ci[1] >= cell.speedup * math.exp(reach) / 1.01
    texts = found.throughput
    assert texts is not None
    assert texts.passes is not None
    assert texts.passes >= 1
    assert texts.candidate_texts_per_second_ci is not None
    low, high = texts.candidate_texts_per_second_ci
    assert low <= texts.candidate_texts_per_second <= high


def test_sizes_are_the_files_and_memory_is_a_lone_process(
    measured: Measurements, tiny_bert: Path, quantized: Path
) -> None:
    assert measured.size_bytes == (quantized / "model.onnx").stat().st_size
    assert measured.checkpoint_bytes == (tiny_bert / "model.safetensors").stat().st_size
    assert measured.size_ratio == measured.size_bytes / measured.checkpoint_bytes
    # onnxruntime and numpy alone; with torch loaded it would be past 200 MB.
    assert 20e6 < measured.peak_rss_bytes < 160e6
    assert 0 < measured.load_seconds < 30


def test_noise_and_machine_stand_beside_the_numbers(measured: Measurements) -> None:
    low, high = measured.noise_ratio_ci
    assert low <= 1.0 + 1e-9
    assert high >= 1.0 - 1e-9 or high > low
    assert measured.hardware_class == hardware.cpu().hardware_class
    assert set(measured.packages) == {"torch", "transformers", "onnxruntime"}
    assert "2015, arXiv:1411.5279" in measured.method


def test_a_candidate_that_is_the_unquantized_model_gains_nothing_and_says_so(
    tiny_bert: Path, exported: Path, rows: Path, tmp_path: Path
) -> None:
    found = run_measure(
        tiny_bert, exported, exported, rows, tmp_path / "out", cells=CELLS[:1], throughput_rows=0, seconds_per_cell=2.0
    )
    assert found.notes == [
        "the candidate is the optimized model, byte for byte: its gain over the unquantized model is 1 or noise"
    ]
    cell = found.latency[0]
    assert cell.gain_difference is Difference.WITHIN_NOISE
    assert found.throughput is None
    assert found.one_text is None


def test_another_hardware_class_than_the_declared_one_is_refused_before_any_work(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(HardwareError) as caught:
        run_measure(nowhere, nowhere, nowhere, nowhere, tmp_path / "out", hardware_class="cpu/abacus/baseline/1t")
    assert "cpu/abacus/baseline/1t" in caught.value.what
    assert hardware.cpu().hardware_class in caught.value.what
    assert caught.value.exit_code == 2


def test_the_declared_hardware_class_of_this_machine_is_accepted(
    tiny_bert: Path, exported: Path, quantized: Path, rows: Path, tmp_path: Path
) -> None:
    declared = hardware.cpu().hardware_class
    found = run_measure(
        tiny_bert,
        exported,
        quantized,
        rows,
        tmp_path / "out",
        hardware_class=declared,
        cells=CELLS[:1],
        throughput_rows=0,
        seconds_per_cell=0.1,
    )
    assert found.hardware_class == declared


def divided(model: Path, directory: Path) -> Path:
    directory.mkdir()
    document = read_model(model)
    for name in document.files():
        (directory / name).symlink_to(model / name)
    write_model(directory, document.model_copy(update={"micro_batching": MicroBatching(max_tokens=64, workers=1)}))
    return directory


def test_a_divided_candidate_is_held_against_the_unquantized_model_divided_alike(
    tiny_bert: Path, exported: Path, quantized: Path, rows: Path, tmp_path: Path
) -> None:
    small, whole = divided(quantized, tmp_path / "small"), divided(exported, tmp_path / "whole")
    settings = contract.MeasureSettings(task="text-classification", runtime=Runtime.ONNXRUNTIME, cells=CELLS)

    def models_beside(candidate: Path) -> tuple[dict[str, TimedModel], list[str]]:
        models, notes = timed_models(contract.MeasureInputs(tiny_bert, exported, exported, candidate, rows), settings)
        return {model.name: model for model in models}, notes

    models, notes = models_beside(small)
    assert sorted(models) == ["baseline", "baseline again", "candidate", "divided", "exported", "optimized"]
    assert models["divided"].micro_batching == MicroBatching(max_tokens=64, workers=1)
    assert models["candidate"].same_as is None
    assert notes == []
    models, notes = models_beside(whole)
    assert models["candidate"].same_as == "divided"
    assert "the candidate is the divided model" in notes[0]
