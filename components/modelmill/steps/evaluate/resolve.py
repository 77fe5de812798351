"""Pin the server and the code that is tried before the smoke test's key is made: others may answer otherwise."""

from __future__ import annotations

import hashlib

from modelmill.core.errors import DeploymentError
from modelmill.core.progress import Progress
from modelmill.serving import repository, server
from modelmill.steps.evaluate.contract import SmokeMode, SmokeSettings


def resolve(settings: SmokeSettings, progress: Progress) -> SmokeSettings:
    """The settings with what the server's environment holds; none where the environment names no server.

    Raises:
        DeploymentError: The recipe requires the smoke test and no server is named, or what is named is none.
    """
    found = None if settings.mode is SmokeMode.OFF else server.find()
    if found is None and settings.mode is SmokeMode.REQUIRED:
        what = f"the recipe requires the smoke test, and {server.VARIABLE} names no server here"
        fix = "make install-triton, and set the variable to the folder it makes (in a deployment: env, and the image)"
        raise DeploymentError(what, where="publish.smoke", fix=fix)
    code = hashlib.sha256(repository.shipped_code()).hexdigest()
    return settings.model_copy(update={"server": found.words if found else None, "code": code})
