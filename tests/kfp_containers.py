"""kfp's local runner with podman in the place of Docker's client library: a pipeline in real containers."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from podman import Podman


@contextmanager
def kfp_containers(podman: Podman, root: Path, steps: str, foreign: str) -> Iterator[list[list[str]]]:
    """Let kfp run pipelines here; yields the command lines that were run.

    Args:
        podman: The engine.
        root: The pipeline's root; containers see it and nothing else.
        steps: The image that stands for modelmill's.
        foreign: The image that stands for every other.
    """
    import kfp.local
    import typing_extensions
    from kfp.local import docker_task_handler
    from kfp.local.status import Status

    ran: list[list[str]] = []
    # A Python component installs kfp before it starts. There is no index here, so kfp lies there already.
    library = ["-v", f"{Path(kfp.__file__).parent}:/run/library/kfp:ro", "--env", "PYTHONPATH=/run/library"]
    library += ["-v", f"{typing_extensions.__file__}:/run/library/typing_extensions.py:ro"]

    def run(handler: Any) -> Status:
        command = list(handler.full_command)
        ran.append(command)
        ours = command[0] == "modelmill"
        if not ours and "pip install" in command[2]:
            command = command[3:]
        mounts = ["-v", f"{root}:{root}", *([] if ours else library)]
        # The folder is the user's own: kfp gives containers one after another the same.
        mounts += ["--user", f"{os.getuid()}:{os.getgid()}"]
        ended = podman("run", "--rm", "--network=none", *mounts, steps if ours else foreign, *command)
        sys.stderr.write(ended.stdout + ended.stderr)
        return Status.SUCCESS if ended.returncode == 0 else Status.FAILURE

    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(sys.stderr):
        patched.setattr(docker_task_handler.DockerTaskHandler, "run", run)
        kfp.local.init(runner=kfp.local.DockerRunner(), pipeline_root=str(root))
        yield ran
