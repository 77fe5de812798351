"""Models timed against each other: what ``modelmill bench`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from modelmill.core import hardware
from modelmill.core.contract import Closed
from modelmill.core.errors import UsageError
from modelmill.core.evidence import Cell, Difference, Interval
from modelmill.core.hardware import Hardware
from modelmill.core.progress import Progress
from modelmill.core.stepkey import package_versions
from modelmill.measuring.cells import cell_calls, fit_cells
from modelmill.measuring.models import OpenModel, is_model_artifact, open_artifact, open_checkpoint
from modelmill.measuring.ratios import difference, ratio
from modelmill.measuring.rounds import Rounds, interleave
from modelmill.targets.base import Runtime
from modelmill.targets.registry import RUNTIMES
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


class BenchSubject(Closed):
    """What was timed."""

    name: str
    path: str
    runs_on: str = Field(description="pytorch, or the runtime")
    precision: str
    size_bytes: int


class BenchRow(Closed):
    """One model in one cell."""

    name: str
    ms_p50: float
    ms_p95: float
    ms_p99: float
    speedup: float = Field(description="the reference's median over this one's")
    speedup_ci: Interval
    difference: Difference | None = Field(description="from the reference; None: it is the reference")


class BenchCell(Closed):
    """One shape of input."""

    workload: Literal["encoder"] = "encoder"
    batch_size: int
    sequence_length: int
    rounds: int
    noise_ratio_ci: Interval = Field(description="the reference timed against itself")
    rows: list[BenchRow]


class BenchResult(Closed):
    """All cells."""

    format: int = 1
    hardware: Hardware
    hardware_class: str
    packages: dict[str, str]
    threads: int
    against: str = Field(description="the reference's name")
    confidence: float
    subjects: list[BenchSubject]
    cells: list[BenchCell]
    notes: list[str]


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
) -> BenchResult:
    """Time models in one process, interleaved.

    Args:
        subjects: At least one; alone, a model is timed against itself.
        cells: Shapes; cut to the shortest maximum of the models.
        threads: Threads within an operator, the same for all.
        seconds: Budget of a cell, all models together.
        seed: Of tokens, order and resamples.
        progress: Told each cell.
        against: Name of the reference; None: the first subject.
        confidence: Of the intervals.

    Raises:
        UsageError: Names are not unique, the reference is unknown, or a checkpoint's task is.
        ModelError: A model is broken.
    """
    reference = _reference(subjects, against)
    models = open_subjects(subjects, threads)
    fitted, notes = fit_cells(cells, min(model.max_length for model in models.values()))
    for note in notes:
        progress.fact(note)
    machine = hardware.cpu()
    measured = []
    for cell in fitted:
        label = f"batch {cell.batch_size}, length {cell.sequence_length}"
        with progress.bar(label, seconds, "s") as bar:
            calls = cell_calls(models, cell, seed)
            calls[reference + AGAIN] = calls[reference]
            rounds = interleave(calls, seconds=seconds, seed=seed, bar=bar)
        measured.append(_cell(rounds, cell, list(models), reference, confidence, seed))
    packages = {"torch", "transformers", *(name for item in subjects for name in RUNTIMES[item.runtime].packages)}
    return BenchResult(
        hardware=machine,
        hardware_class=machine.hardware_class,
        packages=package_versions(tuple(sorted(packages))),
        threads=threads,
        against=reference,
        confidence=confidence,
        subjects=[_described(subject, models[subject.name]) for subject in subjects],
        cells=measured,
        notes=notes,
    )


def open_subjects(subjects: Sequence[Subject], threads: int) -> dict[str, OpenModel]:
    """Load all subjects, by name.

    Raises:
        UsageError: A checkpoint's task is unknown.
        ModelError: One is broken.
    """
    models = {item.name: open_artifact(item.path, item.runtime, threads) for item in subjects if _is_artifact(item)}
    known = next((model.task.name for model in models.values()), None)
    for item in subjects:
        if not _is_artifact(item):
            task = item.task or known
            if task is None:
                what = f"the task of the checkpoint {item.name} is not known"
                raise UsageError(what, where=str(item.path), fix="name its task, or time it beside a model artifact")
            models[item.name] = open_checkpoint(item.path, registry.get(task), threads)
    return {item.name: models[item.name] for item in subjects}


def _is_artifact(subject: Subject) -> bool:
    return is_model_artifact(subject.path)


def _reference(subjects: Sequence[Subject], against: str | None) -> str:
    names = [subject.name for subject in subjects]
    if not names or len(set(names)) < len(names):
        what = "there is no model to time" if not names else f"two models have one name: {', '.join(sorted(names))}"
        raise UsageError(what, where="ARTIFACT", fix="give each model once, under a name of its own")
    if against is not None and against not in names:
        what = f"there is no model {against!r} to time against"
        raise UsageError(what, where="--against", fix=f"use one of: {', '.join(names)}")
    return against or names[0]


def _cell(rounds: Rounds, cell: Cell, names: Sequence[str], reference: str, confidence: float, seed: int) -> BenchCell:
    noise = ratio(rounds, reference, reference + AGAIN, confidence=confidence, seed=seed).interval

    def row(name: str) -> BenchRow:
        found = ratio(rounds, reference, name, confidence=confidence, seed=seed)
        return BenchRow(
            name=name,
            ms_p50=rounds.percentile_ms(name, 50),
            ms_p95=rounds.percentile_ms(name, 95),
            ms_p99=rounds.percentile_ms(name, 99),
            speedup=found.value,
            speedup_ci=found.interval,
            difference=None if name == reference else difference(found.interval, noise),
        )

    return BenchCell(
        batch_size=cell.batch_size,
        sequence_length=cell.sequence_length,
        rounds=rounds.count,
        noise_ratio_ci=noise,
        rows=[row(name) for name in names],
    )


def _described(subject: Subject, model: OpenModel) -> BenchSubject:
    return BenchSubject(
        name=subject.name,
        path=str(subject.path),
        runs_on=subject.runtime.value if _is_artifact(subject) else "pytorch",
        precision=model.precision,
        size_bytes=model.size_bytes,
    )
