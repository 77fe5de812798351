"""Rows for the tiny classifier, read-only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny_artifacts import random_rows, rows_artifact


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows_artifact(tmp_path_factory.mktemp("rows"), random_rows(101))
