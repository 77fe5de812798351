from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelmill.core.errors import ModelmillError
from modelmill.core.evidence import Cell
from modelmill.measuring import footprint_process
from modelmill.measuring.footprint import footprint, lone_run
from modelmill.measuring.models import OpenModel, open_artifact
from modelmill.targets.base import Runtime


@pytest.fixture(scope="module")
def model(exported: Path) -> OpenModel:
    return open_artifact(exported, Runtime.ONNXRUNTIME, threads=1)


def test_a_lone_process_takes_less_than_this_one_which_has_torch(exported: Path, model: OpenModel) -> None:
    batch = model.sample(Cell(batch_size=2, sequence_length=16), seed=0)
    found = footprint(exported, Runtime.ONNXRUNTIME, [batch], threads=1, processes=1)
    assert 20e6 < found.peak_rss_bytes < footprint_process.peak_rss_bytes()
    assert 0 < found.load_seconds < 30


def test_memory_grows_with_the_batches_that_are_run(exported: Path, model: OpenModel) -> None:
    small = model.sample(Cell(batch_size=1, sequence_length=8), seed=0)
    large = model.sample(Cell(batch_size=512, sequence_length=64), seed=0)
    found = [
        footprint(exported, Runtime.ONNXRUNTIME, batches, threads=1, processes=1)
        for batches in ([small], [small, large])
    ]
    # One float32 activation of the large batch, 512 × 64 × 32, is 4 MB; the feed-forward's twice that.
    assert found[1].peak_rss_bytes - found[0].peak_rss_bytes > 8e6


def test_the_process_that_runs_alone_loads_no_torch(exported: Path, model: OpenModel, tmp_path: Path) -> None:
    batch = model.sample(Cell(batch_size=1, sequence_length=8), seed=0)
    np.savez(tmp_path / "batches.npz", allow_pickle=False, **{f"0/{name}": column for name, column in batch.items()})
    modules = set(lone_run(exported, Runtime.ONNXRUNTIME, tmp_path / "batches.npz", threads=1).modules)
    assert "onnxruntime" in modules
    assert not {"torch", "transformers"} & modules


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    batch = {"input_ids": np.zeros((1, 4), np.int64)}
    with pytest.raises(ModelmillError, match=r"memory failed: this is no model artifact"):
        footprint(tmp_path, Runtime.ONNXRUNTIME, [batch], threads=1, processes=1)
