"""Scratch after a kill: what was saved is there at once, on each kind of store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from modelmill.core.store import Store
from modelmill.core.stores import open_store
from seaweed import Seaweed, client_of
from stored_things import SILENT, key_of, make_directory

KILLED = """
import os, signal, sys
from stored_things import SILENT, key_of, make_directory
from modelmill.core.stores import open_store
with open_store(sys.argv[1]).open_scratch(key_of(1), SILENT) as scratch:
    make_directory(scratch.path / "checkpoint-1", {"state": b"one"})
    scratch.saved(scratch.path / "checkpoint-1")
    make_directory(scratch.path / "checkpoint-2", {"state": b"tw"})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run_killed(uri: str, **environment: str) -> None:
    """A process that saves a checkpoint, begins another and is killed."""
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join([str(tests), str(tests.parent / "components")])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, uri],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == -9


def test_a_killed_attempts_checkpoint_is_there_at_once(store: Store) -> None:
    run_killed(store.uri)
    begun = time.monotonic()
    with store.open_scratch(key_of(1), SILENT) as scratch:
        assert time.monotonic() - begun < 10
        assert [path.name for path in scratch.path.iterdir()] == ["checkpoint-1"]
        assert (scratch.path / "checkpoint-1" / "state").read_bytes() == b"one"


def test_a_checkpoint_saved_with_another_machines_cache_is_fetched(s3_store: Store, tmp_path: Path) -> None:
    run_killed(s3_store.uri, MODELMILL_CACHE=str(tmp_path / "elsewhere"))
    with s3_store.open_scratch(key_of(1), SILENT) as scratch:
        assert scratch.path.is_relative_to(tmp_path / "cache")
        assert [path.name for path in scratch.path.iterdir()] == ["checkpoint-1"]
        assert (scratch.path / "checkpoint-1" / "state").read_bytes() == b"one"
        scratch.clear()
    with s3_store.open_scratch(key_of(1), SILENT) as scratch:
        assert list(scratch.path.iterdir()) == []


def plant_lease(store: Store, server: Seaweed, beat: int) -> None:
    """A lease of a process on another machine."""
    key = f"{store.uri}/scratch/{1:064x}/lease.json".removeprefix(f"s3://{server.bucket}/")
    client = client_of(server)
    body = json.dumps({"token": "x", "machine": "elsewhere", "pid": 1, "started": "1", "beat": beat}).encode()
    client.put_object(Bucket=server.bucket, Key=key, Body=body)
    client.close()


def test_a_dead_machines_lease_is_taken_over_after_a_while(
    s3_store: Store, s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_killed(s3_store.uri, MODELMILL_CACHE=str(tmp_path / "elsewhere"))
    plant_lease(s3_store, s3_server, 1)
    monkeypatch.setattr("modelmill.core.s3_scratch.DEAD_SECONDS", 2.0)
    begun = time.monotonic()
    with s3_store.open_scratch(key_of(1), SILENT) as scratch:
        assert 2 <= time.monotonic() - begun < 15
        assert [path.name for path in scratch.path.iterdir()] == ["checkpoint-1"]


def test_a_live_machines_lease_is_respected(s3_store: Store, s3_server: Seaweed) -> None:
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(0.5):
            count += 1
            plant_lease(s3_store, s3_server, count)

    plant_lease(s3_store, s3_server, 0)
    holder = threading.Thread(target=beat)
    holder.start()
    try:
        begun = time.monotonic()
        with s3_store.open_scratch(key_of(1), SILENT) as scratch:
            assert time.monotonic() - begun < 15
            make_directory(scratch.path, {"state": b"private"})
            scratch.saved(scratch.path / "state")
    finally:
        stop.set()
        holder.join()
    client = client_of(s3_server)
    prefix = f"{s3_store.uri}/scratch/".removeprefix(f"s3://{s3_server.bucket}/")
    found = client.list_objects_v2(Bucket=s3_server.bucket, Prefix=prefix)["Contents"]
    client.close()
    assert [item["Key"].rpartition("/")[2] for item in found] == ["lease.json"]


def test_a_held_lease_beats(s3_store: Store, s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelmill.core.s3_scratch.BEAT_SECONDS", 0.2)
    key = f"{s3_store.uri}/scratch/{1:064x}/lease.json".removeprefix(f"s3://{s3_server.bucket}/")
    client = client_of(s3_server)
    with s3_store.open_scratch(key_of(1), SILENT) as scratch:
        seen = set()
        end = time.monotonic() + 20
        while len(seen) < 3 and time.monotonic() < end:
            seen.add(client.head_object(Bucket=s3_server.bucket, Key=key)["ETag"])
        assert len(seen) == 3
        with open_store(s3_store.uri).open_scratch(key_of(1), SILENT) as other:
            assert other.path != scratch.path
    client.close()
