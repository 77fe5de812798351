"""Artifacts that somebody's own task puts into a store and gets from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lane_artifacts import write_lane_rows
from modelmill import artifacts
from modelmill.core.errors import InputError, StoreError


def test_what_is_put_is_got_by_its_digest(tmp_path: Path) -> None:
    rows = write_lane_rows(tmp_path / "rows")
    store = str(tmp_path / "store")
    found = artifacts.get(store, artifacts.put(store, rows, "rows"))
    assert (found / "rows.jsonl").read_bytes() == (rows / "rows.jsonl").read_bytes()
    with pytest.raises(StoreError):
        artifacts.get(store, f"sha256:{'0' * 64}")


def test_what_is_no_artifact_of_the_type_is_not_stored(tmp_path: Path) -> None:
    rows, store = write_lane_rows(tmp_path / "rows"), tmp_path / "store"
    with pytest.raises(InputError, match=r"no model\.json"):
        artifacts.put(str(store), rows, "model")
    with pytest.raises(InputError, match="no artifacts of the type 'row'"):
        artifacts.put(str(store), rows, "row")
    assert not store.exists()


def test_a_channel_that_names_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no bundle"):
        artifacts.serving(str(tmp_path / "store"), "tickets", "production")
