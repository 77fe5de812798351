"""The deployment: where the line runs. Never part of a step key."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from modelmill.core.contract import Closed
from modelmill.core.documents import read_mapping, validate
from modelmill.core.errors import DeploymentError


class Deployment(Closed):
    """What a platform engineer decides."""

    store: str = Field(".modelmill", description="where artifacts live: a directory, or s3://BUCKET/PREFIX")
    mounts: list[str] | None = Field(
        None,
        description="directories that file: sources may lie in; left out, any may be read (one machine, one user)",
    )


def load(path: Path | None) -> Deployment:
    """Read a deployment file; without one, this machine with the store ``.modelmill``.

    Raises:
        DeploymentError: The file is wrong.
    """
    if path is None:
        return Deployment()
    return validate(Deployment, read_mapping(path, DeploymentError, "deployment"), str(path), DeploymentError)
