"""What each task's container is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelmill.core.errors import DeploymentError
from modelmill.deployment import Deployment, load
from modelmill.line import Job
from modelmill.recipe import Located, Recipe
from modelmill.runners.containers import describe

LIGHT = {"begin", "gate.one", "gate.two", "decide", "publish", "finish"}


def _images(**deployed: Any) -> dict[str, str]:
    """Task → image."""
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "task": "text-classification",
            "model": {"source": "package:a/b"},
            "data": {"source": "package:c"},
            "targets": [{"name": "one", "precision": "int8"}, {"name": "two", "precision": "float32"}],
            "publish": {"model": "x", "channel": "staging"},
        }
    )
    deployment = Deployment.model_validate({"store": "s3://bucket/line", **deployed})
    described = describe(Job(Located(recipe=recipe, folder=Path("/nowhere")), deployment))
    return {item.id: item.image for item in described.containers}


def test_the_light_image_runs_what_needs_no_framework_and_nothing_else() -> None:
    found = _images(images={"cpu": "heavy", "light": "light"})
    assert {task for task, image in found.items() if image == "light"} == LIGHT
    assert {image for task, image in found.items() if task not in LIGHT} == {"heavy"}


def test_without_a_light_image_everything_runs_in_the_cpus() -> None:
    assert set(_images(images={"cpu": "heavy"}).values()) == {"heavy"}


def test_a_steps_own_image_goes_before_the_light_one() -> None:
    found = _images(images={"cpu": "heavy", "light": "light"}, steps={"publish": {"image": "own"}})
    assert found["publish"] == "own"
    assert found["finish"] == "light"


def test_an_image_for_nothing_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "deployment.yaml"
    file.write_text("images: {cpu: heavy, lite: light}\n", "utf-8")
    with pytest.raises(DeploymentError, match="lite"):
        load(file)
