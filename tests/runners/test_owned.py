"""Containers end with the run that started them, or at the start of the next one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelmill.runners import engine, owned
from podman import Podman

_STARTS_A_CONTAINER = """
import sys, time
from modelmill.runners import engine, owned
with engine.engine() as address, engine.client(address) as client, owned.owning(client):
    print(client.create_container(sys.argv[1], ["sleep", "600"], labels=owned.label())["Id"], flush=True)
    time.sleep(60)
"""


@pytest.fixture
def base(podman: Podman, tmp_path: Path) -> str:
    return podman.base(tmp_path)


@pytest.fixture
def client(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("MODELMILL_CACHE", str(tmp_path / "cache"))
    with engine.engine() as address, engine.client(address) as found:
        yield found


def _known(client: Any) -> set[str]:
    return {container["Id"] for container in client.containers(all=True)}


def test_an_interrupted_run_removes_its_containers_and_a_killed_ones_go_at_the_next_start(
    client: Any, base: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _STARTS_A_CONTAINER, base]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        orphan = killed.stdout.readline().strip()
        with owned.owning(client):
            assert orphan in _known(client)
        killed.send_signal(signal.SIGKILL)
    with pytest.raises(KeyboardInterrupt):
        _interrupted(client, base, orphan)
    assert not [found for found in client.containers(all=True) if _is_of(found, tmp_path)]
    assert not list((tmp_path / "cache" / "owners").iterdir())


def _interrupted(client: Any, base: str, orphan: str) -> None:
    with owned.owning(client):
        assert orphan not in _known(client)
        own = client.create_container(base, ["sleep", "600"], labels=owned.label())["Id"]
        assert own in _known(client)
        raise KeyboardInterrupt


def _is_of(container: Any, folder: Path) -> bool:
    return str(container["Labels"].get(owned.OWNER_LABEL)).startswith(str(folder))


def test_what_a_run_that_ended_well_keeps_stays(client: Any, base: str) -> None:
    with owned.owning(client):
        kept = client.create_container(base, ["true"], labels=owned.label())["Id"]
    try:
        with owned.owning(client):
            assert kept in _known(client)
    finally:
        client.remove_container(kept)
