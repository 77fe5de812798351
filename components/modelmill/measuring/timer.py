"""Models opened together in one process, and timed in turns there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from modelmill.core.batch_plan import BatchPlan
from modelmill.core.progress import Bar
from modelmill.core.rows import Row
from modelmill.measuring.cells import cell_calls
from modelmill.measuring.models import OpenModel, open_artifact, open_checkpoint
from modelmill.measuring.predicting import length_of, padded_batches, plan_of
from modelmill.measuring.rounds import LEAST_ROUNDS, Call, interleave
from modelmill.measuring.texts import read_texts
from modelmill.measuring.timing_asks import Ask, CellWork, Job, Opened, TextsWork, TimedModel, Timings
from modelmill.tasks import registry
from modelmill.tasks.base import Batch

PIECES = 8
"""A pass over all texts is timed in pieces of like work, so that the models take turns within it."""
Mark = Callable[[int], None]
"""Told the number of the model that is worked on, from 1 on, where a crash would have to be somebody's."""


class Timer:
    """All models of a job, loaded.

    Args:
        job: What is timed.
        mark: Told each model before it is opened or called.
        clock: Seconds; rises.

    Raises:
        ModelError: A model is broken.
        UsageError: A runtime is not installed.
    """

    def __init__(self, job: Job, mark: Mark | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        self._job, self._mark, self._clock = job, mark, clock
        self._models: dict[str, OpenModel] = {}
        for number, item in enumerate(job.models, 1):
            if mark is not None:
                mark(number)
            self._models[item.name] = self._open(item)

    def opened(self) -> dict[str, Opened]:
        """What was found, by name."""
        return {
            name: Opened(
                task=model.task.name,
                max_length=model.max_length,
                size_bytes=model.size_bytes,
                precision=model.precision,
            )
            for name, model in self._models.items()
        }

    def answer(self, ask: Ask, bar: Bar) -> Timings:
        """Time what is asked.

        Raises:
            DataError: The rows cannot be encoded.
        """
        least = math.ceil(LEAST_ROUNDS / ask.parts)
        multiple, factors, share = 1, dict.fromkeys(self._models, 1.0), 1.0
        match ask.work:
            case CellWork():
                calls = cell_calls(self._models, ask.work.cell, self._job.seed)
            case TextsWork(single=True):
                calls = {name: self._singly(model, ask.work, ask.part) for name, model in self._models.items()}
            case TextsWork():
                parts = {name: _Part(model, read_texts(ask.work.rows), ask) for name, model in self._models.items()}
                multiple = min(part.pieces for part in parts.values())
                calls = {name: part.call(multiple) for name, part in parts.items()}
                # What a timing's mean has to be multiplied by to be a pass over all texts.
                factors = {name: multiple / part.share for name, part in parts.items()}
                share = next(iter(parts.values())).share
        rounds = interleave(
            self._marked(calls),
            seconds=ask.seconds,
            seed=self._job.seed + ask.part,
            bar=bar,
            least=least,
            multiple_of=multiple,
            clock=self._clock,
        )
        return Timings(
            seconds={name: (rounds.seconds[name] * factors[name]).tolist() for name in self._models},
            turn=rounds.turn,
            passes=rounds.count // multiple * share,
        )

    def _open(self, item: TimedModel) -> OpenModel:
        if item.same_as is not None:
            return self._models[item.same_as]
        if item.runtime is None:
            return open_checkpoint(item.path, registry.get(item.task), self._job.threads, gpu=item.gpu)
        return open_artifact(item.path, item.runtime, self._job.threads, item.micro_batching)

    def _singly(self, model: OpenModel, work: TextsWork, part: int) -> Call:
        rows = read_texts(work.rows)
        order = np.random.default_rng([self._job.seed, part]).permutation(len(rows))
        features = model.task.encode(model.processor, [rows[index] for index in order], model.max_length)
        batches = [model.task.collate(model.processor, [row]) for row in features]
        return lambda number: model.session.run(batches[number % len(batches)])

    def _marked(self, calls: Mapping[str, Call]) -> Mapping[str, Call]:
        mark = self._mark
        if mark is None:
            return calls

        def marked(number: int, call: Call) -> Call:
            def run(turn: int) -> object:
                mark(number)
                return call(turn)

            return run

        numbers = {item.name: number for number, item in enumerate(self._job.models, 1)}
        return {name: marked(numbers[name], call) for name, call in calls.items()}


class _Part:
    """The texts that one of several processes times: every so many-th batch, so that all together time each once.

    Where there are fewer batches than processes, each times all of them.
    """

    def __init__(self, model: OpenModel, rows: Sequence[Row], ask: Ask) -> None:
        self._model = model
        self._features = model.task.encode(model.processor, rows, model.max_length)
        whole = plan_of(self._features)
        divided = len(whole.batches) >= ask.parts
        self._plan = whole.shard(ask.part, ask.parts) if divided else whole
        self.share = self._tokens(self._plan) / self._tokens(whole)
        self.pieces = min(math.ceil(PIECES / ask.parts) if divided else PIECES, len(self._plan.batches))

    def call(self, pieces: int) -> Call:
        """Runs a piece of the pass, of so many."""
        model = self._model
        shards = [
            padded_batches(model.task, model.processor, self._features, self._plan.shard(index, pieces))
            for index in range(pieces)
        ]

        def run(number: int) -> None:
            batch: Batch
            for batch in shards[number % pieces]:
                model.session.run(batch)

        return run

    def _tokens(self, plan: BatchPlan) -> int:
        """Of the padded batches: what is computed."""
        return sum(len(rows) * max(length_of(self._features[row]) for row in rows) for rows in plan.batches)
