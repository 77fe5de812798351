"""Choose how to quantize, and apply a choice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelmill.core import hardware
from modelmill.core.contract import JSON, Report
from modelmill.core.errors import ModelError, RecipeError
from modelmill.core.manifest import write_json
from modelmill.core.model import ModelDocument, copy_companions, read_model, write_model
from modelmill.core.progress import Progress
from modelmill.graphs import files, parity
from modelmill.measuring.batch_plan import plan_batches
from modelmill.steps.calibrate_quantize.calibration import find_ranges, spread_rows
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
from modelmill.steps.calibrate_quantize.dynamic import quantize_dynamic
from modelmill.steps.calibrate_quantize.static import Range, quantize_static
from modelmill.targets.base import Precision
from modelmill.targets.onnxruntime_cpu import open_session
from modelmill.targets.pytorch import load_processor
from modelmill.tasks import registry
from modelmill.tasks.base import Batch, Task
from modelmill.tasks.samples import random_batch

CHOICE_DOCUMENT = "choice.json"
_MAX_INT8_DEVIATION = 1.0
"""Of the outputs' scale. int8 is judged by its accuracy, at the gate; what is off by the whole scale is broken."""


def choose(inputs: ChooseInputs, outputs: ChooseOutputs, settings: ChooseSettings, progress: Progress) -> Report:
    """Choose a precision and a scheme by rule: int8 where it is allowed, with dynamic ranges unless demanded.

    Raises:
        RecipeError: The demanded scheme is of no allowed precision.
    """
    read_model(inputs.model)
    choice = choose_by_rule(settings, hardware.cpu().instruction_set)
    write_json(outputs.choice / CHOICE_DOCUMENT, choice.model_dump(mode="json"))
    progress.fact(f"{choice.precision.value}, {choice.scheme.value}: {choice.reason}")
    return Report({"precision": choice.precision.value, "scheme": choice.scheme.value, "reason": choice.reason})


def choose_by_rule(settings: ChooseSettings, instruction_set: list[str]) -> Choice:
    """The choice for a processor with the flags ``instruction_set``.

    Raises:
        RecipeError: The demanded scheme is of no allowed precision.
    """
    schemes = {Precision.FLOAT32: (Scheme.NONE,), Precision.INT8: (Scheme.DYNAMIC, Scheme.STATIC)}
    possible = [
        (precision, scheme)
        for precision in (Precision.INT8, Precision.FLOAT32)
        if precision in settings.precisions
        for scheme in schemes[precision]
        if settings.scheme in (None, scheme)
    ]
    if not possible:
        allowed = ", ".join(precision.value for precision in settings.precisions)
        what = f"the scheme {settings.scheme} gives none of the allowed precisions ({allowed})"
        raise RecipeError(what, where="targets.scheme", fix="leave the scheme out, or allow the precision it gives")
    precision, scheme = possible[0]
    # Without VNNI, x86 adds the products of uint8 and int8 in pairs in 16 bits and saturates there
    # (onnxruntime.ai, Quantize ONNX models, "When and why do I need to try U8U8").
    saturates = "avx2" in instruction_set and not {"avx512_vnni", "avx_vnni"} & set(instruction_set)
    reduce_range = precision is Precision.INT8 and saturates
    return Choice(
        precision=precision,
        scheme=scheme,
        embeddings=settings.embeddings,
        calibration_rows=settings.calibration_rows,
        reduce_range=reduce_range,
        reason=_reason(settings, scheme, reduce_range),
    )


def _reason(settings: ChooseSettings, scheme: Scheme, reduce_range: bool) -> str:
    if scheme is Scheme.NONE:
        return "float32 is the only allowed precision"
    words = {
        Scheme.DYNAMIC: "int8 with ranges taken in each batch keeps the most accuracy and needs no calibration",
        Scheme.STATIC: "int8 with calibrated ranges",
    }[scheme]
    demanded = "; the recipe demands the scheme" if settings.scheme is not None else ""
    seven = "; weights have 7 bits, because this processor has no VNNI" if reduce_range else ""
    return words + demanded + seven


def apply(inputs: ApplyInputs, outputs: ApplyOutputs, settings: ApplySettings, progress: Progress) -> Report:
    """Make the candidate that a choice describes.

    Raises:
        DataError: The choice needs ranges, and there are too few calibration rows.
        ModelError: A graph is damaged, or quantizing it breaks it.
    """
    task = registry.get(settings.task)
    document = read_model(inputs.model)
    choice = Choice.model_validate_json((inputs.choice / CHOICE_DOCUMENT).read_bytes())
    copy_companions(document, inputs.model, outputs.model)
    if choice.scheme is Scheme.NONE:
        for component in document.components.values():
            for name in (component.file, *component.external_data):
                shutil.copyfile(inputs.model / name, outputs.model / name)
        write_model(outputs.model, document)
        progress.fact("float32: the graphs stay as they are")
        size = _size(outputs.model, document)
        return Report({"quantized": {}, "bytes_before": size, "bytes_after": size})
    processor = load_processor(inputs.model)
    ranges: Mapping[str, Mapping[str, Range]] = {}
    if choice.scheme is Scheme.STATIC:
        ranges = _calibrate(task, processor, document, inputs, choice, progress)
    quantized, components = {}, {}
    with progress.bar("quantize", len(document.components), "graphs") as bar:
        for role, component in document.components.items():
            graph = files.load(inputs.model / component.file)
            options = {"embeddings": choice.embeddings, "reduce_range": choice.reduce_range}
            if choice.scheme is Scheme.STATIC:
                quantized[role] = quantize_static(graph, ranges[role], **options)
            else:
                quantized[role] = quantize_dynamic(graph, **options)
            components[role] = files.component_of(graph, role, files.save(graph, outputs.model, role))
            bar.advance()
    counts: dict[str, JSON] = {role: dict(number) for role, number in quantized.items()}
    candidate = document.model_copy(
        update={
            "components": components,
            "precision": choice.precision.value,
            "facts": {**document.facts, "quantized": counts, "scheme": choice.scheme.value},
        }
    )
    write_model(outputs.model, candidate)
    deviation = _deviation(task, processor, document, inputs.model, outputs.model, progress)
    before, after = _size(inputs.model, document), _size(outputs.model, candidate)
    progress.fact(f"int8, {choice.scheme.value}: {after} bytes from {before}; {deviation.words('float32')}")
    return Report({"quantized": counts, "bytes_before": before, "bytes_after": after, "deviation": deviation.fact()})


def _calibrate(
    task: Task, processor: Any, document: ModelDocument, inputs: ApplyInputs, choice: Choice, progress: Progress
) -> dict[str, dict[str, Range]]:
    rows = spread_rows(inputs.calibrate, choice.calibration_rows)
    features = task.encode(processor, rows, document.max_length)
    plan = plan_batches([len(next(iter(row.values()))) for row in features])

    def batches() -> Iterator[Batch]:
        for batch in plan.batches:
            yield task.collate(processor, [features[index] for index in batch])

    with progress.bar("calibrate", len(plan.batches), "batches") as bar:
        return find_ranges(document, inputs.model, batches(), hardware.threads(), bar)


def _deviation(
    task: Task, processor: Any, document: ModelDocument, reference: Path, candidate: Path, progress: Progress
) -> parity.Parity:
    def batch_of(batch_size: int, length: int, padded: bool) -> Batch:
        return random_batch(task, processor, batch_size, length, padded=padded)

    threads = hardware.threads()
    before, after = open_session(reference, threads), open_session(candidate, threads)
    grid = tuple(parity.shapes(min(document.max_length, max(parity.LENGTHS))))
    try:
        with progress.bar("deviation from float32", len(grid), "shapes") as bar:
            found = parity.compare(before.run, after.run, batch_of, grid, bar)
    except ModelError as error:
        what = f"the quantized graph is broken: {error.what}"
        raise ModelError(what, fix="allow float32 for this target") from error
    parity.require(found, _MAX_INT8_DEVIATION, "the quantized graph is not the model")
    return found


def _size(directory: Path, document: ModelDocument) -> int:
    """Bytes of all graphs with their external data."""
    names = [name for item in document.components.values() for name in (item.file, *item.external_data)]
    return sum((directory / name).stat().st_size for name in names)
