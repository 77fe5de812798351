"""The whole line on a small random model and a few hundred rows: seconds of work, every step real."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

from modelmill import recipe as recipes
from modelmill.core.progress import SilentProgress
from modelmill.core.store import Store
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners import local
from modelmill.runners.process import StepCommand, StepOutcome, run_here
from modelmill.runners.result import RunDocument
from small_models import make_checkpoint

TOPICS = {
    "card": "card pin virtual physical visa declined lost stolen",
    "money": "cash top up fee charge exchange rate limit",
    "account": "identity verify phone number account change why",
}


def make_rows(folder: Path, train: int = 240, test: int = 120, seed: int = 0) -> Path:
    """Write train.jsonl and test.jsonl: three labels, told apart by their words."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    seen: set[str] = set()
    for name, count in (("train", train), ("test", test)):
        rows = []
        while len(rows) < count:
            label = list(TOPICS)[len(rows) % len(TOPICS)]
            text = " ".join(draw.choice(TOPICS[label].split()) for _ in range(draw.randint(4, 14)))
            if text not in seen:
                seen.add(text)
                rows.append({"text": text, "label": label})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


def make_recipe(folder: Path, **changes: Any) -> Path:
    """Write a model, rows and a recipe for them below ``folder``; ``changes`` replace the recipe's top fields."""
    if not (folder / "model").is_dir():
        make_checkpoint(folder / "model", "bert", labels=["x", "y"])
        make_rows(folder / "rows")
    recipe = {
        "name": "small",
        "task": "text-classification",
        "model": {"source": "file:model"},
        "data": {"source": "file:rows"},
        "retrain": {"method": "fine-tune", "epochs": 4, "learning_rate": 0.005, "batch_size": 8},
        "targets": [{"name": "cpu-int8", "precision": "int8"}],
        "search": {"trials": 0},
        "measure": {
            "cells": [{"batch_size": 1, "sequence_length": 16}],
            "seconds_per_cell": 0.5,
            "processes": 1,
            "throughput_rows": 64,
        },
        "gate": {"max_drop_points": 5.0},
        "publish": {"model": "small", "channel": "staging"},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    return path


def run_in_this_process(
    recipe: Path, store: Store, *overrides: str, deployment: Deployment | None = None
) -> RunDocument:
    """Run a recipe's line without a process for each step: what torch takes to import is paid once."""

    def execute(command: StepCommand) -> StepOutcome:
        return run_here(command, SilentProgress())

    return local.run(Job(recipes.load(recipe, overrides), deployment or Deployment()), store, SilentProgress(), execute)


def reproducible_digests(document: RunDocument) -> dict[str, str]:
    """Task → digest, for the steps whose outputs are the same bytes when made again."""
    return {
        "/".join(part for part in (row.name, row.part, row.target) if part): row.digest
        for row in document.steps
        if row.reproducible
    }
