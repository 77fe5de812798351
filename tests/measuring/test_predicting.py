from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelmill.core.batch_plan import plan_batches
from modelmill.core.errors import ModelError
from modelmill.measuring.models import OpenModel, open_artifact
from modelmill.measuring.predicting import Predicted, join, plan_of, predict
from modelmill.targets.base import Runtime
from modelmill.tasks.base import Features
from tiny_artifacts import random_rows

COUNT = 150


@pytest.fixture(scope="module")
def model(quantized: Path) -> OpenModel:
    return open_artifact(quantized, Runtime.ONNXRUNTIME, threads=1)


@pytest.fixture(scope="module")
def features(model: OpenModel) -> list[Features]:
    return model.task.encode(model.processor, random_rows(COUNT), model.max_length)


def answer(model: OpenModel, features: list[Features], *, shards: int = 1, workers: int = 1) -> bytes:
    plan = plan_of(features)
    parts = [
        predict(model.session, model.task, model.processor, features, plan.shard(index, shards), workers=workers)
        for index in range(shards)
    ]
    return join(parts[::-1], COUNT).tobytes()


def test_shards_joined_are_the_bytes_of_the_whole(model: OpenModel, features: list[Features]) -> None:
    whole = answer(model, features)
    assert len(whole) == COUNT * 3 * 4
    for shards in (2, 3, 5):
        assert answer(model, features, shards=shards) == whole


def test_workers_and_threads_do_not_change_a_byte(model: OpenModel, features: list[Features], quantized: Path) -> None:
    whole = answer(model, features)
    assert answer(model, features, workers=3) == whole
    assert answer(open_artifact(quantized, Runtime.ONNXRUNTIME, threads=2), features) == whole


def test_dynamic_int8_gives_a_text_other_logits_beside_other_texts(model: OpenModel, features: list[Features]) -> None:
    # This is why the plan is a part of the result (onnxruntime#8625): another plan, other logits.
    other = plan_batches([1] * COUNT, max_rows=7)
    part = predict(model.session, model.task, model.processor, features, other)
    planned = np.frombuffer(answer(model, features), dtype=np.float32).reshape(COUNT, 3)
    difference = np.abs(join([part], COUNT) - planned).max()
    assert 1e-6 < difference < 0.1


def test_shards_that_lack_a_row_or_hold_one_twice_are_refused() -> None:
    part = Predicted(np.asarray([0, 2]), np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="2 rows, 2 of them different, for a plan of 3"):
        join([part], 3)
    with pytest.raises(ValueError, match="4 rows, 2 of them different, for a plan of 4"):
        join([part, part], 4)


def test_an_output_that_is_not_finite_names_its_row(model: OpenModel, features: list[Features]) -> None:
    class Poisoned:
        def run(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            values = model.session.run(batch)
            # The third row alone has this many tokens.
            values["logits"][batch["attention_mask"].sum(axis=1) == longest] = np.nan
            return values

    lengths = [len(row["input_ids"]) for row in features]
    longest = max(lengths)
    with pytest.raises(ModelError, match="not finite") as caught:
        predict(Poisoned(), model.task, model.processor, features, plan_of(features))
    assert caught.value.where == f"rows.jsonl: line {lengths.index(longest) + 1}"
