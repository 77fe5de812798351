from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from modelmill.core.model import Chain, Component, MicroBatching, ModelDocument, Stage, Tensor, read_model, write_model
from modelmill.targets.base import Runtime
from modelmill.targets.micro_batches import MicroBatchedSession
from modelmill.targets.pytorch import load_processor
from modelmill.targets.registry import open_session_of
from modelmill.tasks import registry
from modelmill.tasks.samples import random_batch


class Watched:
    """A session that notes what it was asked on how many threads, and answers by arithmetic."""

    def __init__(self, asked: list[tuple[int, list[int]]], threads: int) -> None:
        self.asked, self.threads = asked, threads

    def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        ids = batch["input_ids"]
        self.asked.append((self.threads, list(ids.shape)))
        return {"states": ids[..., None].astype(np.float32), "total": ids.sum(axis=1).astype(np.float32)}


def axes(name: str, *shape: int | str) -> Tensor:
    return Tensor(name=name, dtype="float32", shape=list(shape))


DOCUMENT = ModelDocument(
    task="text-classification",
    architecture="by-hand",
    precision="float32",
    opset=20,
    components={
        "model": Component(
            file="model.onnx",
            inputs=[axes("input_ids", "batch", "sequence")],
            outputs=[axes("states", "batch", "sequence", 1), axes("total", "batch")],
        )
    },
    execution=Chain(
        stages=[
            Stage(component="model", feeds={"input_ids": "input_ids"}, gives={"states": "states", "total": "total"})
        ]
    ),
    processors={},
    max_length=8,
)


def ragged(*lengths: int, left: bool = False) -> dict[str, np.ndarray]:
    width = max(lengths)
    ids, mask = np.zeros((len(lengths), width), np.int64), np.zeros((len(lengths), width), np.int64)
    for row, length in enumerate(lengths):
        where = slice(width - length, width) if left else slice(0, length)
        ids[row, where], mask[row, where] = np.arange(1, length + 1) + 100 * row, 1
    return {"input_ids": ids, "attention_mask": mask}


def divided(max_tokens: int, workers: int, threads: int) -> tuple[MicroBatchedSession, list[tuple[int, list[int]]]]:
    asked: list[tuple[int, list[int]]] = []
    settings = MicroBatching(max_tokens=max_tokens, workers=workers)
    return MicroBatchedSession(lambda count: Watched(asked, count), DOCUMENT, settings, threads), asked


def test_rows_of_like_length_stand_together_cut_to_the_longest_of_them() -> None:
    session, asked = divided(8, 1, 2)
    session.run(ragged(2, 7, 3, 2, 8))
    assert [shape for _, shape in asked] == [[1, 8], [1, 7], [1, 3], [2, 2]]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(("max_tokens", "workers"), [(0, 1), (0, 2), (6, 2), (1000, 2)])
def test_answers_come_in_the_batchs_order_and_shape(max_tokens: int, workers: int, left: bool) -> None:
    batch = ragged(3, 1, 5, 2, 4, 5, left=left)
    session, _ = divided(max_tokens, workers, 2)
    values = session.run(batch)
    assert values["total"].tolist() == batch["input_ids"].sum(axis=1).tolist()
    assert values["states"][..., 0].tolist() == batch["input_ids"].tolist()


def test_padding_before_a_text_is_kept_for_it_is_a_position() -> None:
    session, asked = divided(0, 1, 1)
    session.run(ragged(2, 5, left=True))
    assert [shape for _, shape in asked] == [[1, 5], [1, 5]]


def test_a_batch_of_one_part_has_all_threads_and_parts_divide_them() -> None:
    session, asked = divided(4, 2, 4)
    session.run(ragged(4))
    session.run(ragged(4, 4))
    assert [threads for threads, _ in asked] == [4, 2, 2]


def test_more_workers_than_threads_are_as_many_as_threads() -> None:
    session, asked = divided(4, 8, 2)
    session.run(ragged(4, 4, 4))
    assert {threads for threads, _ in asked} == {1}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_divided_model_answers_as_the_undivided_one(exported: Path, tmp_path: Path, workers: int) -> None:
    document = read_model(exported)
    for name in document.files():
        (tmp_path / name).symlink_to(exported / name)
    write_model(tmp_path, document.model_copy(update={"micro_batching": MicroBatching(max_tokens=32, workers=workers)}))
    open_session = open_session_of(Runtime.ONNXRUNTIME)
    batch = random_batch(registry.get(document.task), load_processor(exported), 9, 20, padded=True)
    whole, parts = (open_session(path, 2).run(batch)["logits"] for path in (exported, tmp_path))
    assert np.abs(whole - parts).max() < 1e-5
    assert not np.array_equal(whole, np.roll(whole, 1, axis=0))
