"""The container engine of this machine: what it has, and that it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelmill.core.errors import DeploymentError
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.recipe import Located, Recipe
from modelmill.runners import engine, sight
from podman import Podman

_HOLDS_AN_ENGINE = """
import time
from modelmill.runners import engine
with engine._podman() as address:
    print(address, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def client(podman: Podman) -> Iterator[Any]:
    with engine.engine() as address, engine.client(address) as found:
        yield found


def test_podmans_service_and_its_folder_go_when_who_started_it_is_killed(podman: Podman) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLDS_AN_ENGINE], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        path = holder.stdout.readline().strip().removeprefix("unix://")
        assert _named_in_a_command_line(path)
        holder.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (_named_in_a_command_line(path) or Path(path).parent.exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _named_in_a_command_line(path)
    assert not Path(path).parent.exists()


def _named_in_a_command_line(word: str) -> bool:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in file.read_bytes() and file.parent.name != str(os.getpid()):
                return True
        except OSError:
            # It ended meanwhile.
            continue
    return False


@pytest.mark.parametrize("name", ["Not An Image", "", "localhost/modelmill-no-such:1"])
def test_an_image_that_is_malformed_or_missing_is_an_error_of_the_deployment(name: str, client: Any) -> None:
    with pytest.raises(DeploymentError, match="not on this machine"):
        engine.find_image(client, name)


def test_a_steps_own_image_is_looked_for_before_anything_starts(client: Any, podman: Podman, tmp_path: Path) -> None:
    recipe = {
        "name": "x",
        "task": "text-classification",
        "model": {"source": "package:a/b"},
        "data": {"source": "package:c"},
        "targets": [{"name": "one", "precision": "int8"}],
        "publish": {"model": "x", "channel": "staging"},
    }
    deployed = {
        "store": "s3://bucket/line",
        "images": {"cpu": podman.base(tmp_path)},
        "steps": {"retrain": {"image": "localhost/nope:2"}},
    }
    job = Job(
        Located(recipe=Recipe.model_validate(recipe), folder=Path("/nowhere")), Deployment.model_validate(deployed)
    )
    with pytest.raises(DeploymentError, match="localhost/nope:2"):
        sight.with_images(job, client)
