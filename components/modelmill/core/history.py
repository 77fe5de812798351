"""How an artifact came to be: the step that made it and all steps before, as its manifest tells.

It travels with the artifacts, so that a step knows it from its inputs alone. It is in no digest: equal bytes tell how
they were made first.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from pydantic import Field, ValidationError

import modelmill
from modelmill.core.contract import JSON, Closed
from modelmill.core.manifest import MANIFEST, Manifest, canonical

IMAGE_VARIABLE = "MODELMILL_CONTAINER_IMAGE"
"""The environment variable that tells a container which image it runs in."""
HISTORY = "history"


class Made(Closed):
    """One step, as it was run."""

    step: str = Field(description="its id: evaluate-baseline")
    version: int
    settings: dict[str, JSON] = Field(default_factory=dict, description="those in its key")
    inputs: dict[str, str | dict[str, str]] = Field(default_factory=dict, description="input port → digest")
    facts: dict[str, JSON] = Field(default_factory=dict, description="small ones of reproducible steps")
    image: str | None = Field(None, description="the container image, as the deployment names it")
    environment: str | None = Field(None, description="digest of the packages that were installed")


class History(Closed):
    """What is told of an artifact."""

    steps: dict[str, Made] = Field(default_factory=dict, description="step key → step")
    environments: dict[str, dict[str, str]] = Field(default_factory=dict, description="digest → package → version")

    def and_then(self, key: str, made: Made) -> History:
        """The same with one more step, made in this environment."""
        packages = dict(installed())
        digest = "sha256:" + hashlib.sha256(canonical(packages)).hexdigest()
        found = made.model_copy(update={"environment": digest, "image": os.environ.get(IMAGE_VARIABLE)})
        return History(
            steps={**self.steps, key: found},
            environments={**self.environments, digest: packages},
        )


def of(directories: Iterable[Path]) -> History:
    """What the manifests of artifacts tell; an artifact without one, or one of an older modelmill, adds nothing."""
    steps: dict[str, Made] = {}
    environments: dict[str, dict[str, str]] = {}
    for directory in directories:
        path = directory / MANIFEST
        if not path.is_file():
            continue
        try:
            told = History.model_validate(Manifest.model_validate_json(path.read_bytes()).made_by.get(HISTORY))
        except ValidationError:
            continue
        steps |= told.steps
        environments |= told.environments
    return History(steps=dict(sorted(steps.items())), environments=dict(sorted(environments.items())))


@functools.cache
def installed() -> tuple[tuple[str, str], ...]:
    """(package, version) of all that is installed here, by name."""
    found = {item.name.lower().replace("_", "-"): item.version for item in metadata.distributions() if item.name}
    return tuple(sorted({**found, "modelmill": modelmill.__version__}.items()))
