"""Running the steps of a lane one after another in a test, on directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelmill.core.contract import JSON
from modelmill.core.evidence import Cell
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import Dataset, Role, write_rows
from modelmill.steps.calibrate_quantize import contract as quantize
from modelmill.steps.calibrate_quantize import run as quantize_run
from modelmill.steps.export import contract as export
from modelmill.steps.export import run as export_run
from modelmill.steps.optimize import contract as optimize
from modelmill.steps.optimize import run as optimize_run
from modelmill.targets.base import Precision, Runtime
from small_models import WORDS

TASK = "text-classification"
Facts = dict[str, JSON]


def fresh(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


def run_export(checkpoint: Path, output: Path, task: str = TASK, **settings: Any) -> Facts:
    outputs = export.Outputs(fresh(output))
    report = export_run.run(
        export.Inputs(checkpoint), outputs, export.Settings(task=task, **settings), SilentProgress()
    )
    return dict(report.facts)


def run_optimize(model: Path, output: Path, task: str = TASK, **settings: Any) -> Facts:
    outputs = optimize.Outputs(fresh(output))
    asked = optimize.Settings(task=task, runtime=Runtime.ONNXRUNTIME, **settings)
    return dict(optimize_run.run(optimize.Inputs(model), outputs, asked, SilentProgress()).facts)


def run_choose(model: Path, rows: Path, output: Path, task: str = TASK, **settings: Any) -> quantize.Choice:
    """Choose, by rule unless ``search`` says otherwise."""
    asked = choose_settings(**{"task": task, "search": quantize.Search(trials=0), **settings})
    inputs = quantize.ChooseInputs(model=model, calibrate=rows, tune=rows)
    journal = output.with_name(f"{output.name}-journal")
    journal.mkdir(exist_ok=True)
    quantize_run.choose(inputs, quantize.ChooseOutputs(fresh(output), journal), asked, SilentProgress())
    return quantize.Choice.model_validate_json((output / "choice.json").read_bytes())


def choose_settings(**changes: Any) -> quantize.ChooseSettings:
    """Settings of a lane that allows all."""
    settings = {
        "task": TASK,
        "runtime": Runtime.ONNXRUNTIME,
        "precisions": [Precision.FLOAT32, Precision.INT8],
        "cells": [Cell(batch_size=1, sequence_length=16)],
    }
    return quantize.ChooseSettings.model_validate({**settings, **changes})


def run_apply(model: Path, choice: Path, rows: Path, output: Path, task: str = TASK) -> Facts:
    inputs = quantize.ApplyInputs(model=model, choice=choice, calibrate=rows)
    asked = quantize.ApplySettings(task=task, runtime=Runtime.ONNXRUNTIME)
    return dict(quantize_run.apply(inputs, quantize.ApplyOutputs(fresh(output)), asked, SilentProgress()).facts)


def make_rows(directory: Path, count: int, task: str = TASK) -> Path:
    """Rows of three to nine words, with labels in blocks as sorted files have them."""
    names = ["alpha", "beta", "gamma"]
    rows = [
        {
            "id": f"rows:{index}",
            "text": " ".join(WORDS[(index * 7 + word * 5) % len(WORDS)] for word in range(3 + index % 7)),
            "label": names[index * 3 // max(count, 1)],
        }
        for index in range(count)
    ]
    columns = ["text", "label"]
    dataset = Dataset(task=task, role=Role.CALIBRATE, columns=columns, labels=names, count=count)
    write_rows(fresh(directory), dataset, rows)
    return directory
