"""Leases: how a live run tells a collector that it is at work."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from modelmill.core.durable import token
from modelmill.core.errors import StoreError
from modelmill.core.manifest import canonical
from modelmill.core.store import Store

BEAT_SECONDS = 20.0
"""A live run renews its lease this often."""
EXPIRY_SECONDS = 120.0
"""A lease that was not renewed for so long by the store's clock is a dead run's."""


@dataclass(frozen=True)
class Lease:
    """One process's lease for a run."""

    name: str
    run: str
    started: float
    """By the store's clock, seconds since the epoch."""
    live: bool


@contextmanager
def lease(store: Store, run: str, beat_seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Hold a lease for ``run``, ``runs/<run>.<holder>.lease``: several processes of one run hold one each.

    Raises:
        StoreError: The store is away at the start. Later it may be away for a while: the run goes on, and a lease
            that was removed meanwhile is made again.
    """
    name = f"runs/{run}.{token()}.lease"
    started = store.now()
    stop = threading.Event()

    def beat(count: int) -> None:
        content = canonical({"format": 1, "run": run, "started": started, "beat": count})
        document = store.read(name)
        if document is None:
            store.create(name, content)
        else:
            store.replace(name, content, document.version)

    def renew() -> None:
        count = 0
        while not stop.wait(beat_seconds):
            count += 1
            with suppress(StoreError):
                beat(count)

    beat(0)
    thread = threading.Thread(target=renew, name="run-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with suppress(StoreError):
            store.delete(name)


def leases(store: Store, now: float) -> list[Lease]:
    """All leases, dead ones too.

    Args:
        store: Where to look.
        now: The store's clock.
    """
    found = []
    for name, changed_at in store.list_documents("runs/"):
        if not name.endswith(".lease"):
            continue
        document = store.read(name)
        if document is None:
            continue
        live = now - changed_at < EXPIRY_SECONDS
        try:
            content = json.loads(document.content)
            found.append(Lease(name, str(content["run"]), float(content["started"]), live))
        except (ValueError, KeyError, TypeError):
            # A lease nobody can read protects from its last change on; its run's name is the file's.
            run = name.removeprefix("runs/").removesuffix(".lease").rpartition(".")[0]
            found.append(Lease(name, run, changed_at, live))
    return found
