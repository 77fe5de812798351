"""The chart's policy for work steps on a real S3 server: the line runs under it, and only publish can release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from charts.test_chart_readme import block
from modelmill import recipe as recipes
from modelmill.core import registry
from modelmill.core.contract import Zone
from modelmill.core.stores import open_store
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners.containers import ZONE_LABEL, describe
from orchestrate import orchestrate
from seaweed import keys_of, seaweed
from whole_line import make_recipe

STORE = "s3://models/line"
QUICK = {
    "retrain": {"method": "fine-tune", "epochs": 1, "batch_size": 8},
    "targets": [{"name": "cpu", "precision": "float32"}],
    "search": {"trials": 0},
    "measure": {
        "cells": [{"batch_size": 1, "sequence_length": 16}],
        "seconds_per_cell": 0.1,
        "processes": 1,
        "throughput_rows": 0,
    },
    "gate": {"max_drop_points": 100.0},
}
"""What is stored is the same by kind; how good it is does not matter here."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _policies() -> dict[str, str]:
    (text,) = block("policy", "json")
    work = json.loads(text.replace("BUCKET", "models"))
    actions = [action for statement in work["Statement"][1:] for action in statement["Action"]]
    everywhere = {"Effect": "Allow", "Action": actions, "Resource": ["arn:aws:s3:::models/line/*"]}
    release = {**work, "Statement": [work["Statement"][0], everywhere]}
    return {Zone.UNTRUSTED.value: json.dumps(work), Zone.RELEASE.value: json.dumps(release)}


def test_the_line_runs_under_the_two_policies_and_work_alone_cannot_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_recipe(tmp_path, **QUICK)
    value = yaml.safe_load(path.read_text("utf-8"))
    value["model"]["source"], value["data"]["source"] = f"file:{tmp_path / 'model'}", f"file:{tmp_path / 'rows'}"
    path.write_text(yaml.safe_dump(value), "utf-8")
    described = describe(Job(recipes.load(path), Deployment(store=STORE, mounts=[str(tmp_path)])))
    zones = {item.id: item.labels[ZONE_LABEL] for item in described.containers}

    def become(zone: str) -> None:
        keys = keys_of(zone)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["access_key"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["secret_key"])

    with seaweed(tmp_path / "s3", policies=_policies()) as server:
        for name, text in server.environment(tmp_path / "cache").items():
            monkeypatch.setenv(name, text)
        # All as the identity of the work steps: they end, and publish is refused what it would release by.
        work = orchestrate(described, tmp_path, "all-work", before=lambda task: become(Zone.UNTRUSTED.value))
        assert set(work.errors) == {"publish", "finish"}
        assert "registry/" in work.errors["publish"] or "denied" in work.errors["publish"].lower()
        become(Zone.RELEASE.value)
        assert registry.show_channel(open_store(STORE), "small", "staging") is None

        found = orchestrate(described, tmp_path, "two-zones", before=lambda task: become(zones[task]))
        assert found.errors == {}
        assert found.pointers["finish"] == "promoted"
        assert registry.show_channel(open_store(STORE), "small", "staging") is not None
