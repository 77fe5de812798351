"""The stores that the tests of the core run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelmill.core.store import Store
from modelmill.core.stores import open_store


@pytest.fixture(params=["local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    return open_store(str(tmp_path / "store"))
