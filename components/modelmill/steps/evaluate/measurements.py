"""What the candidate takes, held against the baseline and the best unquantized model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelmill.core import hardware
from modelmill.core.contract import Report
from modelmill.core.errors import HardwareError
from modelmill.core.evidence import Cell, Measurements
from modelmill.core.manifest import write_json
from modelmill.core.progress import Progress
from modelmill.core.stepkey import package_versions
from modelmill.measuring import ratios
from modelmill.measuring.cells import fit_cells
from modelmill.measuring.footprint import footprint
from modelmill.measuring.models import OpenModel, open_artifact, open_checkpoint, same_graphs
from modelmill.steps.evaluate.comparison import BASELINE, CANDIDATE, UNQUANTIZED
from modelmill.steps.evaluate.contract import MEASURE, MeasureInputs, MeasureSettings
from modelmill.steps.evaluate.evaluation_rows import load_rows
from modelmill.steps.evaluate.latency import time_cell
from modelmill.steps.evaluate.throughput import choose_rows, time_texts
from modelmill.tasks import registry
from modelmill.tasks.base import Batch

DOCUMENT = "measurements.json"


def write_measurements(inputs: MeasureInputs, directory: Path, settings: MeasureSettings, progress: Progress) -> Report:
    """Measure as the settings say and write ``measurements.json``.

    Raises:
        HardwareError: The machine is not of the declared hardware class.
        DataError: There are no rows to measure throughput on.
        ModelError: A model is broken.
    """
    machine = hardware.cpu()
    require_hardware_class(settings.hardware_class, machine.hardware_class)
    models, notes = open_models(inputs, settings, machine.threads)
    cells, cuts = fit_cells(settings.cells, min(model.max_length for model in models.values()))
    notes += cuts
    for note in notes:
        progress.fact(note)
    latency = [time_cell(models, cell, settings.seconds_per_cell, settings.seed, progress) for cell in cells]
    throughput = None
    if settings.throughput_rows:
        rows = choose_rows(load_rows(inputs.rows, models[BASELINE].task), settings.throughput_rows, settings.seed)
        throughput = time_texts(models, rows, settings.seconds_per_cell, settings.seed, progress)
    alone = footprint(
        inputs.candidate, settings.runtime, _samples(models[CANDIDATE], cells, settings.seed), machine.threads
    )
    noises = [cell.noise_ratio_ci for cell in latency if cell.noise_ratio_ci]
    size, checkpoint = models[CANDIDATE].size_bytes, models[BASELINE].size_bytes
    measured = Measurements(
        hardware=machine,
        hardware_class=machine.hardware_class,
        packages=package_versions(MEASURE.packages),
        latency=latency,
        throughput=throughput,
        noise_ratio_ci=ratios.widest(noises),
        load_seconds=alone.load_seconds,
        load_seconds_each=alone.load_seconds_each,
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


def require_hardware_class(declared: str | None, found: str) -> None:
    """Check the machine against the declared hardware class; None declares nothing.

    Raises:
        HardwareError: They differ.
    """
    if declared is not None and declared != found:
        what = f"the target declares the hardware class {declared}, and this machine is {found}"
        fix = "run the step on the declared hardware, or declare this one: what is measured stands for it alone"
        raise HardwareError(what, where="targets: hardware_class", fix=fix)


def open_models(
    inputs: MeasureInputs, settings: MeasureSettings, threads: int
) -> tuple[dict[str, OpenModel], list[str]]:
    """Load everything that is timed, on the same threads, and say which models are one.

    A candidate that is an unquantized model byte for byte shares its session: two copies of one model differ by
    where their memory happens to lie, which is no gain of quantizing.

    Raises:
        ModelError: A model is broken.
    """
    task = registry.get(settings.task)
    models = {
        BASELINE: open_checkpoint(inputs.checkpoint, task, threads),
        "exported": open_artifact(inputs.exported, settings.runtime, threads),
        "optimized": open_artifact(inputs.optimized, settings.runtime, threads),
    }
    paths = {"exported": inputs.exported, "optimized": inputs.optimized}
    twin = next((name for name in reversed(UNQUANTIZED) if same_graphs(paths[name], inputs.candidate)), None)
    if twin is None:
        return {**models, CANDIDATE: open_artifact(inputs.candidate, settings.runtime, threads)}, []
    note = f"the candidate is the {twin} model, byte for byte: its gain over the unquantized model is 1 or noise"
    return {**models, CANDIDATE: models[twin]}, [note]


def _samples(model: OpenModel, cells: Sequence[Cell], seed: int) -> list[Batch]:
    return [model.sample(cell, seed) for cell in cells]
