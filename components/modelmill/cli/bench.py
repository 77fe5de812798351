"""The command bench: models timed against each other."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from modelmill.cli.artifacts import local_directory
from modelmill.cli.options import JsonOption
from modelmill.cli.output import megabytes, print_json, print_table, print_text
from modelmill.cli.progress import stderr_progress
from modelmill.core import hardware, lineage
from modelmill.core.errors import DataError, UsageError
from modelmill.core.evidence import Cell
from modelmill.core.model import MODEL_DOCUMENT
from modelmill.core.rows import Row, read_dataset, read_rows
from modelmill.core.stores import open_store
from modelmill.targets.base import Runtime
from modelmill.targets.registry import RUNTIMES, on_gpu

_PYTORCH = "pytorch"
_REFERENCES = f"name a model artifact or a checkpoint directory, or {_PYTORCH}"


def _cell(text: str) -> Cell:
    batch, _, length = text.lower().partition("x")
    if not (batch.isdigit() and length.isdigit() and int(batch) and int(length)):
        what = f"{text!r} is no shape of input"
        raise UsageError(what, where="--cell", fix="write BATCHxLENGTH, as in --cell 1x128")
    try:
        return Cell(batch_size=int(batch), sequence_length=int(length))
    except ValidationError as problem:
        what = f"{text!r} is too large a shape: {problem.errors()[0]['msg'].lower()}"
        raise UsageError(what, where="--cell", fix="name a smaller one") from None


def _runtime(name: str) -> Runtime:
    here = {runtime.value: runtime for runtime in RUNTIMES}
    if name not in here:
        what = f"there is no runtime {name!r} here"
        raise UsageError(what, where="--runtime", fix=f"use one of: {', '.join(here)}")
    return here[name]


def _model(location: str, where: str, fix: str) -> Path:
    """The directory of a model artifact or a checkpoint, named at ``where``; ``fix`` helps where it is neither."""
    directory = local_directory(location)
    if not any((directory / name).is_file() for name in (MODEL_DOCUMENT, "config.json")):
        named = location or "the empty name"
        what = f"{named} is no model: it has neither {MODEL_DOCUMENT} nor a checkpoint's config.json"
        raise UsageError(what, where=where, fix=fix)
    return directory


def _checkpoint_of(directory: Path) -> Path:
    """The checkpoint that a stored model artifact was made from."""
    folder, digest = directory.resolve().parent, directory.resolve().name
    found = None
    if folder.name == "artifacts" and re.fullmatch("[0-9a-f]{64}", digest):
        store = open_store(str(folder.parent))
        found = lineage.ancestor(store, f"sha256:{digest}", "checkpoint")
    if found is None:
        what = f"the checkpoint that {directory} was made from is not known"
        raise UsageError(what, where="--against pytorch", fix="name it: --against CHECKPOINT_DIRECTORY")
    return store.get_artifact(found, stderr_progress())


def _texts(location: str) -> list[Row]:
    """The rows of a rows artifact."""
    directory = local_directory(location)
    try:
        count, rows = read_dataset(directory).count, list(read_rows(directory))
    except (OSError, ValueError):
        what = f"{location} is no rows artifact"
        fix = "give what fetch wrote, as run --json prints it: its output evaluate"
        raise UsageError(what, where="--texts", fix=fix) from None
    if not count or not rows:
        what = "there are no rows to time"
        raise DataError(what, where=location, fix="name a rows artifact that has rows")
    return rows


def bench(
    artifacts: Annotated[
        list[str], typer.Argument(metavar="ARTIFACT...", help="Model artifacts: directories or s3:// URIs.")
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="REFERENCE",
            help="pytorch: the checkpoint the first artifact was made from; or a directory.  [default: the first]",
        ),
    ] = None,
    runtimes: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime",
            metavar="RUNTIME",
            help="What runs the artifacts; repeatable: each runs them all.  [default: onnxruntime]",
        ),
    ] = None,
    cells: Annotated[
        list[str] | None, typer.Option("--cell", metavar="BATCHxLENGTH", help="Shape of input; repeatable.")
    ] = None,
    texts: Annotated[
        str | None,
        typer.Option(
            "--texts",
            metavar="ROWS",
            help="Rows artifact whose texts are timed, too, at their real lengths: fetch's output evaluate, as run "
            "prints it.",
        ),
    ] = None,
    count: Annotated[int, typer.Option("--text-count", min=1, help="Of the rows, drawn by the seed.")] = 512,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Time budget of a cell.")] = 10.0,
    processes: Annotated[
        int, typer.Option("--processes", min=1, max=10, help="Fresh processes that share the budget; 1: this one.")
    ] = 3,
    core_hour: Annotated[
        float | None,
        typer.Option("--core-hour", metavar="PRICE", help="Of one core for one hour: texts' cost is told."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of tokens, texts and order.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Time models in turns, in several fresh processes, with intervals; what lies inside the noise is called so."""
    shapes = [_cell(text) for text in cells or ["1x16", "1x128", "32x128"]]
    if not math.isfinite(seconds):
        what = f"a cell cannot be timed for {seconds} seconds"
        raise UsageError(what, where="--seconds", fix="give a number, such as 10")
    priced = core_hour is None or 0 < core_hour < math.inf
    if core_hour is not None and not (priced and texts is not None):
        what = "a cost is of texts, and none are timed" if priced else "a price is a number above 0"
        raise UsageError(what, where="--core-hour", fix="give a price above 0, and --texts ROWS")
    running = [_runtime(name) for name in dict.fromkeys(runtimes or [Runtime.ONNXRUNTIME.value])]
    if core_hour is not None and any(on_gpu(runtime) for runtime in running):
        what = "a cost counts the core-hours of CPUs, and a GPU is not one"
        raise UsageError(what, where="--core-hour", fix="leave --core-hour out, or time the runtimes of CPUs alone")
    fix = "give the artifact of a target, as run --json prints it"
    directories = [_model(location, "ARTIFACT", fix) for location in artifacts]
    rows = _texts(texts) if texts is not None else []
    # What it takes to load torch is paid only by who benches.
    engine = importlib.import_module("modelmill.measuring.bench")
    subjects = [
        engine.Subject(_name(path, index) + (f" {runtime.value}" if len(running) > 1 else ""), path, runtime)
        for index, path in enumerate(directories)
        for runtime in running
    ]
    reference = subjects[0].name
    if against is not None:
        path = _checkpoint_of(directories[0]) if against == _PYTORCH else _model(against, "--against", _REFERENCES)
        reference = _PYTORCH if against == _PYTORCH else "reference"
        subjects.insert(0, engine.Subject(reference, path, running[0]))
    result = engine.bench(
        subjects,
        shapes,
        threads=hardware.threads(),
        seconds=seconds,
        seed=seed,
        progress=stderr_progress(),
        against=reference,
        processes=processes,
        texts=importlib.import_module("modelmill.measuring.texts").choose_rows(rows, count, seed),
        core_hour=core_hour,
    )
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    _print(result)


def _print(result: Any) -> None:
    """The tables for people."""
    of = f"{result.processes} processes" if result.processes > 1 else "one process"
    print_text(f"{result.hardware_class}; ratios to {result.against}, {result.confidence:.0%} intervals over {of}")
    for note in result.notes:
        print_text(note)
    print_table(
        "",
        ["model", "runs on", "precision", "size", "load", "first answer", "peak memory"],
        [
            (
                item.name,
                item.runs_on,
                item.precision,
                megabytes(item.size_bytes),
                f"{item.load_seconds:.2f} s",
                f"{item.first_answer_seconds * 1e3:.1f} ms",
                megabytes(item.peak_rss_bytes),
            )
            for item in result.subjects
        ],
    )
    for cell in result.cells:
        _print_calls(f"batch {cell.batch_size}, length {cell.sequence_length}", cell, result.against)
    if result.texts is None:
        return
    texts = result.texts
    _print_calls(f"{texts.texts} texts, one at a time", texts.one_at_a_time, result.against)
    print_table(
        f"\n{texts.texts} texts in batches ({texts.passes} passes; {_noise(texts, result.against)})",
        ["model", "texts/s", "interval", "speed-up", "interval", "difference", "cost of a million"],
        [
            (
                row.name,
                f"{row.texts_per_second:.1f}",
                "{:.1f} to {:.1f}".format(*row.texts_per_second_ci),
                *_ratio(row),
                None if row.cost_per_million is None else f"{row.cost_per_million:.3g}",
            )
            for row in texts.rows
        ],
    )


def _print_calls(label: str, timed: Any, against: str) -> None:
    print_table(
        f"\n{label} ({timed.rounds} rounds; {_noise(timed, against)})",
        ["model", "ms p50", "ms p95", "ms p99", "speed-up", "interval", "difference"],
        [(row.name, f"{row.ms_p50:.3f}", f"{row.ms_p95:.3f}", f"{row.ms_p99:.3f}", *_ratio(row)) for row in timed.rows],
    )


def _noise(timed: Any, against: str) -> str:
    low, high = timed.noise_ratio_ci
    return f"{against} against itself: {low:.3f} to {high:.3f}"


def _ratio(row: Any) -> tuple[object, ...]:
    return f"{row.speedup:.2f}", f"{row.speedup_ci[0]:.2f} to {row.speedup_ci[1]:.2f}", row.difference


def _name(path: Path, index: int) -> str:
    """A short name for a model: the first digits of a stored artifact's digest, else its folder."""
    name = path.resolve().name
    short = name[:12] if re.fullmatch("[0-9a-f]{64}", name) else name
    return f"{index + 1}:{short}"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)
