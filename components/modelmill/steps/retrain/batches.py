"""Which rows go together in which step: a plan that the seed and the epoch alone decide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GROUPED_BATCHES = 50
"""Batches among which rows are sorted by length, as in transformers' `LengthGroupedSampler`.

Batches of 32 rows taken at random, padded to their longest, have 2.92 times the tokens of BANKING77's own texts;
sorted among 50 batches it is 1.06 times.
"""


def epoch_plan(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch, as arrays of row numbers; every row is in exactly one.

    Rows are shuffled, sorted by length within each `GROUPED_BATCHES` batches, cut into batches, and the batches
    shuffled: neighbours in a batch have like lengths, and neither lengths nor rows follow any order over the epoch.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of a batch; the last one may have fewer.
        seed: The training's.
        epoch: From 0; each has its own order.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    tokens = np.asarray(lengths)[order]
    group = batch_size * GROUPED_BATCHES
    grouped = np.concatenate(
        [
            order[start : start + group][np.argsort(-tokens[start : start + group], kind="stable")]
            for start in range(0, len(order), group)
        ]
    )
    batches = [grouped[start : start + batch_size] for start in range(0, len(grouped), batch_size)]
    return [batches[index] for index in random.permutation(len(batches))]


def sorted_plan(lengths: Sequence[int], batch_size: int) -> list[np.ndarray]:
    """Batches of rows of like length, longest first: for predicting, where order does not matter."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def steps_of(rows: int, batch_size: int) -> int:
    """Batches of one epoch."""
    return -(-rows // batch_size)
