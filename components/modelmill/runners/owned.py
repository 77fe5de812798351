"""Whose a container is: none outlives the run that started it for longer than until the next run.

A run holds the lock of a file for as long as it lives, and each of its containers has the file's name as a label. The
kernel lets go of the lock however the run ends, so that the next one can tell which containers nobody waits for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelmill.core.cache import cache_directory
from modelmill.runners import engine

OWNER_LABEL = "modelmill.owner"
_VARIABLE = "MODELMILL_OWNER"
_SETTLING_SECONDS = 0.5


def label() -> dict[str, str]:
    """The label of a container that this process starts; none where it is started for no run of this machine."""
    owner = os.environ.get(_VARIABLE)
    return {OWNER_LABEL: owner} if owner else {}


@contextmanager
def owning(client: Any) -> Iterator[None]:
    """Own what is started while the block runs, also by child processes; a block left early has its containers removed.

    First the containers of runs that were killed are removed.

    Args:
        client: Docker's plain client of the engine.
    """
    _remove_orphans(client)
    path = cache_directory() / "owners" / secrets.token_hex(8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        os.environ[_VARIABLE] = str(path)
        left_early = False
        try:
            yield
        except BaseException:
            left_early = True
            raise
        finally:
            del os.environ[_VARIABLE]
            # Where the engine does not do it, the file stays, and the next run tries again.
            with contextlib.suppress(engine.client_library().errors.DockerException, OSError):
                if left_early:
                    _remove(client, str(path))
                    # A request whose sender was killed is answered all the same.
                    time.sleep(_SETTLING_SECONDS)
                    _remove(client, str(path))
                path.unlink()


def _remove_orphans(client: Any) -> None:
    listed = client.containers(all=True, filters={"label": OWNER_LABEL})
    for owner in {container["Labels"][OWNER_LABEL] for container in listed}:
        # Without its file it is the container of another machine, or was kept on purpose by a run that ended well.
        with contextlib.suppress(OSError), Path(owner).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(client, owner)
            Path(owner).unlink()


def _remove(client: Any, owner: str) -> None:
    for container in client.containers(all=True, filters={"label": f"{OWNER_LABEL}={owner}"}):
        with contextlib.suppress(engine.client_library().errors.NotFound):
            client.remove_container(container["Id"], force=True)
