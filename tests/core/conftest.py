"""The stores that the tests of the core run on."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from modelmill.core.store import Store
from modelmill.core.stores import open_store
from seaweed import Seaweed


@pytest.fixture
def s3_uri(s3_server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of its own on the server, with the environment set to reach it."""
    for name, value in s3_server.environment(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}/test/{uuid.uuid4().hex}"


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """An empty store in a directory that is not there yet."""
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def s3_store(s3_uri: str) -> Store:
    """An empty store on the server."""
    return open_store(s3_uri)


@pytest.fixture(params=["local_store", "s3_store"])
def store(request: pytest.FixtureRequest) -> Store:
    """An empty store of each kind."""
    store: Store = request.getfixturevalue(request.param)
    return store
