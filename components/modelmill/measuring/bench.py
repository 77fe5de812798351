"""Models timed against each other, and weighed alone: what ``modelmill bench`` does."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelmill.core.errors import UsageError
from modelmill.core.evidence import Cell, Interval
from modelmill.core.model import read_model
from modelmill.core.progress import Progress
from modelmill.core.rows import Row
from modelmill.core.stepkey import package_versions
from modelmill.measuring.bench_result import (
    Against,
    BenchCell,
    BenchResult,
    BenchRow,
    BenchSingles,
    BenchSubject,
    BenchTexts,
    BenchThroughputRow,
)
from modelmill.measuring.cells import fit_cells
from modelmill.measuring.cost import cost_of_a_million
from modelmill.measuring.footprint import Footprint, footprint
from modelmill.measuring.models import is_model_artifact
from modelmill.measuring.ratios import METHOD, Statistic, difference, mean_seconds, ratio_across
from modelmill.measuring.rounds import median_ms, pooled_ms
from modelmill.measuring.texts import texts_works
from modelmill.measuring.timing import PROCESSES, Timed, time_models
from modelmill.measuring.timing_asks import CellWork, Job, Opened, TimedModel, Work
from modelmill.targets.base import Runtime
from modelmill.targets.pytorch import load_processor
from modelmill.targets.registry import RUNTIMES, machine_of, on_gpu, require_gpu
from modelmill.tasks import registry

AGAIN = " again"
"""Follows the reference's name where it is timed against itself."""


@dataclass(frozen=True)
class Subject:
    """One model to time.

    Attributes:
        name: As it is printed; unique.
        path: A model artifact, or a checkpoint, which PyTorch runs.
        runtime: Runs a model artifact.
        task: A checkpoint's task; None: that of the first model artifact beside it.
    """

    name: str
    path: Path
    runtime: Runtime = Runtime.ONNXRUNTIME
    task: str | None = None


def bench(
    subjects: Sequence[Subject],
    cells: Sequence[Cell],
    *,
    threads: int,
    seconds: float,
    seed: int,
    progress: Progress,
    against: str | None = None,
    confidence: float = 0.95,
    processes: int = PROCESSES,
    texts: Sequence[Row] = (),
    core_hour: float | None = None,
) -> BenchResult:
    """Time models in turns in several fresh processes, and weigh each alone.

    Args:
        subjects: At least one; alone, a model is timed against itself.
        cells: Shapes; cut to the shortest maximum of the models.
        threads: Threads within an operator, the same for all.
        seconds: Budget of a cell, all models and processes together; so much again for texts, and for single ones.
        seed: Of tokens, order and resamples.
        progress: Told each cell.
        against: Name of the reference; None: the first subject.
        confidence: Of the intervals.
        processes: Fresh processes that share the time; 1: this one.
        texts: Rows of the models' task to time at their real lengths.
        core_hour: Price of one core for an hour; None: costs are not told.

    Raises:
        UsageError: Names are not unique, the reference is unknown, or a checkpoint's task is.
        ModelError: A model is broken.
        HardwareError: A subject runs on a GPU, and there is none.
    """
    reference = _reference(subjects, against)
    models = timed_subjects(subjects)
    for item in models:
        if item.runtime is not None:
            require_gpu(item.runtime)
    twice = next(model for model in models if model.name == reference)
    again = twice.model_copy(update={"name": reference + AGAIN, "same_as": reference})
    fitted: list[Cell] = []
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="modelmill-bench-") as folder:

        def works(opened: Mapping[str, Opened]) -> list[Work]:
            some, cuts = fit_cells(cells, min(model.max_length for model in opened.values()))
            fitted.extend(some)
            notes.extend(cuts)
            for note in cuts:
                progress.fact(note)
            return [*(CellWork(cell=cell) for cell in some), *texts_works(texts, Path(folder))]

        job = Job(models=[*models, again], threads=threads, seed=seed)
        opened, timed = time_models(job, works, processes=processes, seconds=seconds, progress=progress)
    reader = _Reader([subject.name for subject in subjects], reference, confidence, seed)
    alone = {model.name: _alone(model, fitted, threads, seed) for model in models}
    machine = machine_of(max((item.runtime for item in subjects), key=on_gpu))
    packages = {"torch", "transformers", *(name for item in subjects for name in RUNTIMES[item.runtime].packages)}
    return BenchResult(
        hardware=machine,
        hardware_class=machine.hardware_class,
        packages=package_versions(tuple(sorted(packages))),
        threads=threads,
        processes=processes,
        against=reference,
        confidence=confidence,
        method=METHOD,
        subjects=[_described(model, opened[model.name], alone[model.name]) for model in models],
        cells=[reader.cell(cell, found) for cell, found in zip(fitted, timed, strict=False)],
        texts=reader.texts(timed[-2], timed[-1], len(texts), threads, core_hour) if texts else None,
        core_hour=core_hour,
        notes=notes,
    )


def timed_subjects(subjects: Sequence[Subject]) -> list[TimedModel]:
    """The subjects as they are timed, in their order.

    Raises:
        UsageError: A checkpoint's task is unknown.
        ModelError: An artifact is broken.
    """
    tasks = {item.name: read_model(item.path).task for item in subjects if is_model_artifact(item.path)}
    known = next(iter(tasks.values()), None)
    models = []
    gpu = any(on_gpu(item.runtime) for item in subjects)
    for item in subjects:
        task = tasks.get(item.name) or item.task or known
        if task is None:
            what = f"the task of the checkpoint {item.name} is not known"
            raise UsageError(what, where=str(item.path), fix="time it beside a model artifact of its task")
        runtime = item.runtime if item.name in tasks else None
        models.append(TimedModel(name=item.name, path=item.path, runtime=runtime, task=task, gpu=gpu))
    return models


def _reference(subjects: Sequence[Subject], against: str | None) -> str:
    names = [subject.name for subject in subjects]
    if not names or len(set(names)) < len(names):
        what = "there is no model to time" if not names else f"two models have one name: {', '.join(sorted(names))}"
        raise UsageError(what, where="ARTIFACT", fix="give each model once, under a name of its own")
    if against is not None and against not in names:
        what = f"there is no model {against!r} to time against"
        raise UsageError(what, where="--against", fix=f"use one of: {', '.join(names)}")
    return against or names[0]


@dataclass(frozen=True)
class _Reader:
    """Reads timings against the reference's."""

    names: Sequence[str]
    reference: str
    confidence: float
    seed: int

    def cell(self, cell: Cell, timed: Timed) -> BenchCell:
        """One shape of input."""
        return BenchCell(
            batch_size=cell.batch_size,
            sequence_length=cell.sequence_length,
            rounds=timed.count,
            noise_ratio_ci=self._noise(timed, np.median),
            rows=self._rows(timed),
        )

    def texts(self, singly: Timed, batched: Timed, count: int, threads: int, core_hour: float | None) -> BenchTexts:
        """Texts at their real lengths."""
        return BenchTexts(
            texts=count,
            passes=batched.passes,
            noise_ratio_ci=self._noise(batched, np.mean),
            rows=[self._throughput(name, batched, count, threads, core_hour) for name in self.names],
            one_at_a_time=BenchSingles(
                rounds=singly.count, noise_ratio_ci=self._noise(singly, np.median), rows=self._rows(singly)
            ),
        )

    def _rows(self, timed: Timed) -> list[BenchRow]:
        return [
            BenchRow(
                **self._against(name, timed, np.median).model_dump(),
                ms_p50=median_ms(timed.processes, name),
                ms_p95=pooled_ms(timed.processes, name, 95),
                ms_p99=pooled_ms(timed.processes, name, 99),
            )
            for name in self.names
        ]

    def _throughput(
        self, name: str, timed: Timed, count: int, threads: int, core_hour: float | None
    ) -> BenchThroughputRow:
        took = mean_seconds(timed.processes, name, confidence=self.confidence, seed=self.seed)
        slow, fast = (round(count / bound, 2) for bound in reversed(took.interval))
        rate, cost, bounds = round(count / took.value, 2), None, None
        if core_hour is not None:
            cost = cost_of_a_million(rate, threads, core_hour)
            bounds = cost_of_a_million(fast, threads, core_hour), cost_of_a_million(slow, threads, core_hour)
        return BenchThroughputRow(
            **self._against(name, timed, np.mean).model_dump(),
            texts_per_second=rate,
            texts_per_second_ci=(slow, fast),
            cost_per_million=cost,
            cost_per_million_ci=bounds,
        )

    def _against(self, name: str, timed: Timed, statistic: Statistic) -> Against:
        found = ratio_across(
            timed.processes, self.reference, name, confidence=self.confidence, statistic=statistic, seed=self.seed
        )
        same = name == self.reference
        return Against(
            name=name,
            speedup=found.value,
            speedup_ci=found.interval,
            difference=None if same else difference(found.interval, self._noise(timed, statistic)),
        )

    def _noise(self, timed: Timed, statistic: Statistic) -> Interval:
        return ratio_across(
            timed.processes,
            self.reference,
            self.reference + AGAIN,
            confidence=self.confidence,
            statistic=statistic,
            seed=self.seed,
        ).interval


def _alone(model: TimedModel, cells: Sequence[Cell], threads: int, seed: int) -> Footprint:
    """What a model takes in processes of its own, every cell run once there."""
    task, processor = registry.get(model.task), load_processor(model.path)
    batches = [task.sample(processor, cell.batch_size, cell.sequence_length, seed) for cell in cells]
    return footprint(model.path, model.runtime, batches, threads, task=model.task)


def _described(model: TimedModel, opened: Opened, alone: Footprint) -> BenchSubject:
    return BenchSubject(
        name=model.name,
        path=str(model.path),
        runs_on=model.runtime.value if model.runtime else "pytorch",
        precision=opened.precision,
        size_bytes=opened.size_bytes,
        load_seconds=alone.load_seconds,
        first_answer_seconds=alone.first_answer_seconds,
        peak_rss_bytes=alone.peak_rss_bytes,
    )
