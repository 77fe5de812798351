"""Choose how to quantize, and apply a choice."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from modelmill.core import hardware
from modelmill.core.batch_plan import MAX_BATCH_ROWS
from modelmill.core.contract import JSON, Report
from modelmill.core.errors import DataError, ModelError, RecipeError
from modelmill.core.evidence import TRIALS
from modelmill.core.manifest import write_json
from modelmill.core.model import CHECKPOINT_BYTES, ModelDocument, ShapeProfile, read_model, write_model
from modelmill.core.progress import Progress
from modelmill.core.rows import read_dataset
from modelmill.graphs import parity
from modelmill.measuring.models import graph_bytes
from modelmill.steps.calibrate_quantize.calibration import require_rows, require_task
from modelmill.steps.calibrate_quantize.contract import (
    ApplyInputs,
    ApplyOutputs,
    ApplySettings,
    Choice,
    ChooseInputs,
    ChooseOutputs,
    ChooseSettings,
    Scheme,
)
from modelmill.steps.calibrate_quantize.for_gpu import write_simulation
from modelmill.steps.calibrate_quantize.search import SEVEN_BITS, Search
from modelmill.steps.calibrate_quantize.space import Candidate, candidates
from modelmill.steps.calibrate_quantize.trial_asks import Job
from modelmill.steps.calibrate_quantize.trials import TrialTable
from modelmill.steps.calibrate_quantize.variants import make_variant
from modelmill.steps.calibrate_quantize.workbench import Workbench
from modelmill.targets.base import Precision, Runtime, Session
from modelmill.targets.onnxruntime_cpu import open_session
from modelmill.targets.pytorch import load_processor
from modelmill.targets.registry import RUNTIMES, machine_of, on_gpu, open_session_of, require_gpu, require_installed
from modelmill.tasks import registry
from modelmill.tasks.base import Batch, Task
from modelmill.tasks.samples import random_batch

CHOICE_DOCUMENT = "choice.json"
_MAX_INT8_DEVIATION = 1.0
"""Of the outputs' scale. int8 is judged by its accuracy, at the gate; what is off by the whole scale is broken."""


def choose(inputs: ChooseInputs, outputs: ChooseOutputs, settings: ChooseSettings, progress: Progress) -> Report:
    """Choose what makes the fastest model within the bounds, by trials or, where none are asked for, by rule.

    Raises:
        RecipeError: The runtime serves none of the allowed precisions, or the demanded scheme gives none of them.
        HardwareError: The machine is not of the declared hardware class, trials are asked for and it has no GPU, or
            only bf16 is allowed and it does not compute that.
        DataError: There are no tune rows to judge candidates by, or rows are another task's, or only candidates that
            are calibrated are allowed and there are too few rows for it.
        ModelError: The unquantized model is broken, or no candidate runs.
        StepKilledError: The process that tries candidates is killed before it can try any.
        UsageError: The runtime is not installed.
    """
    document = read_model(inputs.model)
    machine = machine_of(settings.runtime)
    hardware.require_class(settings.hardware_class, machine.hardware_class)
    space = within_memory(allowed(settings, machine.instruction_set), settings.search.max_calibration_rss_bytes)
    _require_rows(inputs, registry.get(settings.task), space)
    shapes = shapes_for(settings, document.max_length)
    if settings.search.trials == 0:
        choice = by_rule(space).model_copy(update={"shapes": shapes})
        write_json(outputs.choice / CHOICE_DOCUMENT, choice.model_dump(mode="json"))
        progress.fact(f"{choice.precision.value}, {choice.scheme.value}: {choice.reason}")
        return Report({"precision": choice.precision.value, "scheme": choice.scheme.value, "reason": choice.reason})
    if not read_dataset(inputs.tune).count:
        what = "there are no tune rows to judge candidates by"
        raise DataError(what, where="data.tune", fix="hold out a share (tune: 0.15), or set search: {trials: 0}")
    require_gpu(settings.runtime)
    require_installed(settings.runtime, "runtime")
    job = Job(
        model=inputs.model,
        calibrate=inputs.calibrate,
        tune=inputs.tune,
        task=settings.task,
        runtime=settings.runtime,
        threads=machine.threads,
        cells=settings.cells,
        seed=settings.search.seed,
    )
    noted = document.facts.get(CHECKPOINT_BYTES)
    checkpoint = noted if isinstance(noted, int) else graph_bytes(inputs.model, document)
    with Workbench(job, outputs.journal, progress, settings.search.seconds) as bench:
        found = Search(bench, settings, machine.threads, checkpoint, progress).run(space)
        seconds = bench.seconds
    table = TrialTable(
        threads=machine.threads,
        bound=settings.bound,
        checkpoint_bytes=checkpoint,
        seconds=round(seconds, 3),
        reason=found.reason,
        notes=found.notes,
        trials=found.trials,
        chosen=found.chosen,
    )
    table = table.model_copy(update={"tried": table.rows()})
    best = found.trials[found.chosen]
    choice = Choice(**best.variant.model_dump(), micro_batching=best.micro_batching, shapes=shapes, reason=found.reason)
    write_json(outputs.choice / CHOICE_DOCUMENT, choice.model_dump(mode="json"))
    write_json(outputs.choice / TRIALS, table.model_dump(mode="json"))
    return Report(
        {
            "precision": choice.precision.value,
            "scheme": choice.scheme.value,
            "reason": choice.reason,
            "tried": [row.model_dump(mode="json") for row in table.tried],
            "gain_over_unquantized": round(best.gain, 4),
            "seconds": table.seconds,
            "notes": list(found.notes),
        }
    )


def saturates(instruction_set: Sequence[str]) -> bool:
    """Whether a processor adds products of uint8 and int8 in pairs in 16 bits, and saturates there: x86 without VNNI.

    Source: onnxruntime.ai, Quantize ONNX models, "When and why do I need to try U8U8".
    """
    return "avx2" in instruction_set and not {"avx512_vnni", "avx_vnni"} & set(instruction_set)


def allowed(settings: ChooseSettings, instruction_set: list[str]) -> list[Candidate]:
    """The candidates that a lane allows on a processor with the flags ``instruction_set``; at least one.

    Raises:
        RecipeError: The runtime serves none of the allowed precisions, or the demanded scheme gives none of them.
        HardwareError: Only bf16 is allowed, and the processor does not compute it.
    """
    serves_on_gpu = on_gpu(settings.runtime)
    has_bf16 = serves_on_gpu or hardware.computes_bf16(instruction_set)
    asked = partial(
        candidates,
        settings.runtime,
        settings.precisions,
        scheme=settings.scheme,
        embeddings=settings.embeddings,
        calibration_rows=settings.calibration_rows,
        reduce_range=saturates(instruction_set) and not serves_on_gpu,
    )
    space = asked(has_bf16=has_bf16)
    if space:
        return space
    precisions = ", ".join(precision.value for precision in settings.precisions)
    if asked(has_bf16=True):
        hardware.require_bf16(instruction_set)
    if not set(settings.precisions) & set(RUNTIMES[settings.runtime].precisions):
        served = ", ".join(precision.value for precision in RUNTIMES[settings.runtime].precisions)
        what = f"the runtime {settings.runtime.value} serves none of the allowed precisions ({precisions})"
        raise RecipeError(what, where="targets.precision", fix=f"allow one that it serves: {served}")
    what = (
        f"on {settings.runtime.value} the scheme {settings.scheme} gives none of the allowed precisions ({precisions})"
    )
    raise RecipeError(what, where="targets.scheme", fix="leave the scheme out, or allow the precision it gives")


def within_memory(space: Sequence[Candidate], most: int | None) -> list[Candidate]:
    """The candidates, those that are calibrated told how much memory that may take."""
    limit = {"max_calibration_rss_bytes": most}
    return [
        replace(item, variant=item.variant.model_copy(update=limit)) if item.variant.scheme is Scheme.STATIC else item
        for item in space
    ]


def _require_rows(inputs: ChooseInputs, task: Task, space: Sequence[Candidate]) -> None:
    """Rows that are wrong for every candidate end the search before its first trial."""
    require_task(inputs.calibrate, task, "data.calibrate")
    require_task(inputs.tune, task, "data.tune")
    # fp16's islands stand where values that were seen do not fit.
    if all(item.variant.scheme is Scheme.STATIC or item.variant.rest is Precision.FP16 for item in space):
        require_rows(inputs.calibrate, task)


def shapes_for(settings: ChooseSettings, max_length: int) -> ShapeProfile | None:
    """The shapes that TensorRT builds its engine for: tuned for the first cell, and up to all that evaluate sends."""
    if settings.runtime is not Runtime.ONNXRUNTIME_TENSORRT:
        return None
    first = settings.cells[0]
    return ShapeProfile(
        usual_batch=first.batch_size,
        usual_length=min(first.sequence_length, max_length),
        largest_batch=max(MAX_BATCH_ROWS, *(cell.batch_size for cell in settings.cells)),
        largest_length=max_length,
    )


def by_rule(space: Sequence[Candidate]) -> Choice:
    """The first of the candidates, untried."""
    first = space[0]
    seven = f"; {SEVEN_BITS}" if first.variant.reduce_range else ""
    others = "nothing was tried" if len(space) > 1 else "it is the only allowed candidate"
    return Choice(**first.variant.model_dump(), reason=f"{first.name}: {others}{seven}")


def apply(inputs: ApplyInputs, outputs: ApplyOutputs, settings: ApplySettings, progress: Progress) -> Report:
    """Make the candidate that a choice describes.

    Raises:
        DataError: The choice needs ranges, and calibration rows are too few or another task's.
        RecipeError: Calibrating takes more memory than the recipe allows.
        ModelError: A graph is damaged, or quantizing it breaks it.
    """
    task = registry.get(settings.task)
    choice = Choice.model_validate_json((inputs.choice / CHOICE_DOCUMENT).read_bytes())
    facts = make_variant(inputs.model, inputs.calibrate, outputs.model, choice, task, settings.runtime, progress)
    document = read_model(inputs.model)
    changes = {"micro_batching": choice.micro_batching, "shapes": choice.shapes}
    candidate = read_model(outputs.model).model_copy(update=changes)
    write_model(outputs.model, candidate)
    before, after = graph_bytes(inputs.model, document), graph_bytes(outputs.model, candidate)
    report: dict[str, JSON] = {"quantized": {}, **facts, "bytes_before": before, "bytes_after": after}
    if not facts:
        progress.fact(f"{choice.precision.value}: the graphs stay as they are")
        return Report(report)
    processor = load_processor(inputs.model)
    deviation = _deviation(task, processor, document, inputs.model, outputs.model, settings.runtime, progress)
    words = f"{choice.precision.value}, {choice.scheme.value}: {after} bytes from {before}"
    progress.fact(f"{words}; {deviation.words('float32')}")
    return Report({**report, "deviation": deviation.fact()})


def _deviation(
    task: Task,
    processor: Any,
    document: ModelDocument,
    reference: Path,
    candidate: Path,
    runtime: Runtime,
    progress: Progress,
) -> parity.Parity:
    def batch_of(batch_size: int, length: int, padded: bool) -> Batch:
        return random_batch(task, processor, batch_size, length, padded=padded)

    threads = hardware.threads()
    before = open_session(reference, threads)
    if on_gpu(runtime):
        # Simulated where there is a GPU, too: the same choice gives the same facts everywhere.
        with tempfile.TemporaryDirectory() as folder:
            write_simulation(candidate, Path(folder))
            after: Session = open_session(Path(folder), threads)
    else:
        after = open_session_of(runtime)(candidate, threads)
    grid = tuple(parity.shapes(min(document.max_length, max(parity.LENGTHS))))
    try:
        with progress.bar("deviation from float32", len(grid), "shapes") as bar:
            found = parity.compare(before.run, after.run, batch_of, grid, bar)
    except ModelError as error:
        what = f"the candidate is broken: {error.what}"
        raise ModelError(what, fix="allow float32 for this target") from error
    parity.require(found, _MAX_INT8_DEVIATION, "the candidate is not the model")
    return found
