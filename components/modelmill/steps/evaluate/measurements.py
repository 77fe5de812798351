"""What the candidate takes, held against the baseline and the best unquantized model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmill.core import hardware
from modelmill.core.contract import Report
from modelmill.core.evidence import Cell, Measurements
from modelmill.core.manifest import write_json
from modelmill.core.model import read_model
from modelmill.core.progress import Progress
from modelmill.core.stepkey import package_versions
from modelmill.measuring import ratios
from modelmill.measuring.cells import fit_cells
from modelmill.measuring.footprint import footprint
from modelmill.measuring.models import same_graphs
from modelmill.measuring.texts import choose_rows, texts_works
from modelmill.measuring.timing import time_models
from modelmill.measuring.timing_asks import CellWork, Job, Opened, TimedModel, Work
from modelmill.steps.evaluate.comparison import AGAIN, BASELINE, CANDIDATE, DIVIDED
from modelmill.steps.evaluate.contract import MEASURE, MeasureInputs, MeasureSettings
from modelmill.steps.evaluate.evaluation_rows import load_rows
from modelmill.steps.evaluate.latency import latency_of, text_latency_of
from modelmill.steps.evaluate.throughput import throughput_of
from modelmill.targets.pytorch import load_processor
from modelmill.targets.registry import machine_of, on_gpu, require_gpu
from modelmill.tasks import registry

DOCUMENT = "measurements.json"


def write_measurements(inputs: MeasureInputs, directory: Path, settings: MeasureSettings, progress: Progress) -> Report:
    """Measure as the settings say and write ``measurements.json``.

    Raises:
        HardwareError: The machine is not of the declared hardware class, or has not the GPU that the runtime needs.
        DataError: There are no rows to measure throughput on.
        ModelError: A model is broken.
    """
    # Before anything is loaded: a baseline alone, on the CPU, says nothing of a GPU.
    require_gpu(settings.runtime)
    machine = machine_of(settings.runtime)
    hardware.require_class(settings.hardware_class, machine.hardware_class)
    models, notes = timed_models(inputs, settings)
    task, count = registry.get(settings.task), settings.throughput_rows
    rows = choose_rows(load_rows(inputs.rows, task), count, settings.seed) if count else []
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory(prefix="modelmill-measure-") as folder:

        def works(opened: Mapping[str, Opened]) -> list[Work]:
            fitted, cuts = fit_cells(settings.cells, min(model.max_length for model in opened.values()))
            cells.extend(fitted)
            notes.extend(cuts)
            for note in notes:
                progress.fact(note)
            return [*(CellWork(cell=cell) for cell in fitted), *texts_works(rows, Path(folder))]

        opened, timed = time_models(
            Job(models=models, threads=machine.threads, seed=settings.seed),
            works,
            processes=settings.processes,
            seconds=settings.seconds_per_cell,
            progress=progress,
        )
    latency = [latency_of(found, cell, settings.seed, progress) for cell, found in zip(cells, timed, strict=False)]
    one_text = text_latency_of(timed[-2], len(rows), settings.seed, progress) if rows else None
    throughput = throughput_of(timed[-1], len(rows), settings.seed, progress) if rows else None
    samples = [task.sample(load_processor(inputs.candidate), cell.batch_size, cell.sequence_length, settings.seed)
               for cell in cells]  # fmt: skip
    alone = footprint(inputs.candidate, settings.runtime, samples, machine.threads)
    noises = [cell.noise_ratio_ci for cell in latency if cell.noise_ratio_ci]
    size, checkpoint = opened[CANDIDATE].size_bytes, opened[BASELINE].size_bytes
    measured = Measurements(
        hardware=machine,
        hardware_class=machine.hardware_class,
        packages=package_versions(MEASURE.packages_for(settings)),
        latency=latency,
        throughput=throughput,
        one_text=one_text,
        processes=settings.processes,
        noise_ratio_ci=ratios.widest(noises),
        load_seconds=alone.load_seconds,
        load_seconds_each=alone.load_seconds_each,
        first_answer_seconds=alone.first_answer_seconds,
        peak_rss_bytes=alone.peak_rss_bytes,
        size_bytes=size,
        checkpoint_bytes=checkpoint,
        size_ratio=size / checkpoint,
        method=ratios.METHOD,
        notes=notes,
    )
    write_json(directory / DOCUMENT, measured.model_dump(mode="json"))
    first = latency[0]
    return Report(
        {
            "hardware_class": measured.hardware_class,
            "speedup": round(first.speedup, 4),
            "speedup_ci": [round(bound, 4) for bound in first.speedup_ci],
            "gain_over_unquantized": round(first.gain_over_unquantized, 4),
            "noise_ratio_ci": [round(bound, 4) for bound in measured.noise_ratio_ci],
            "peak_rss_bytes": measured.peak_rss_bytes,
            "load_seconds": measured.load_seconds,
            "size_ratio": round(measured.size_ratio, 4),
            "notes": list(notes),
        }
    )


def timed_models(inputs: MeasureInputs, settings: MeasureSettings) -> tuple[list[TimedModel], list[str]]:
    """Everything that is timed, and in words which models are one.

    A candidate that is an unquantized model byte for byte shares its session: two copies of one model differ by
    where their memory happens to lie, which is no gain of quantizing. The baseline is timed twice.

    Raises:
        ModelError: A model is broken.
    """

    def artifact(name: str, path: Path, **changes: Any) -> TimedModel:
        return TimedModel(name=name, path=path, runtime=settings.runtime, task=settings.task, **changes)

    baseline = TimedModel(
        name=BASELINE, path=inputs.checkpoint, runtime=None, task=settings.task, gpu=on_gpu(settings.runtime)
    )
    models = [
        baseline,
        baseline.model_copy(update={"name": AGAIN, "same_as": BASELINE}),
        artifact("exported", inputs.exported),
        artifact("optimized", inputs.optimized),
    ]
    paths = {"exported": inputs.exported, "optimized": inputs.optimized}
    document = read_model(inputs.candidate)
    division = document.micro_batching
    if division is not None:
        models.append(artifact(DIVIDED, inputs.optimized, micro_batching=division))
        paths = {DIVIDED: inputs.optimized}
    # The same graphs opened with other options answer at another speed.
    alike = [] if document.session else [*reversed(paths)]
    twin = next((name for name in alike if same_graphs(paths[name], inputs.candidate)), None)
    if twin is None:
        return [*models, artifact(CANDIDATE, inputs.candidate)], []
    note = f"the candidate is the {twin} model, byte for byte: its gain over the unquantized model is 1 or noise"
    return [*models, artifact(CANDIDATE, inputs.candidate, same_as=twin)], [note]
