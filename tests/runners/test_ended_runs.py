"""What a local orchestrator makes of a run whose last task could not write how it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelmill.core import records
from modelmill.core.errors import DataError, OutsideError
from modelmill.core.local_store import LocalStore
from modelmill.runners.conclusion import ended, interrupted, record_of
from modelmill.runners.result import RunDocument, Status

LOG = "the end of airflow.log"


def _kept(folder: Path, error: str | None, error_class: str | None) -> LocalStore:
    store = LocalStore(folder)
    document = RunDocument(
        run="night",
        recipe="small",
        recipe_digest="sha256:" + "0" * 64,
        status=Status.RUNNING,
        started_at=records.utc_now(),
        error=error,
        error_class=error_class,
    )
    records.save_run(store, record_of(document))
    return store


def test_the_error_of_the_task_that_failed_is_raised_with_its_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split"):
        ended(_kept(tmp_path, "fetch: there is no split", "DataError"), "night", LOG)


def test_a_run_that_says_nothing_more_failed_outside(tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match="did not end"):
        ended(_kept(tmp_path, None, None), "night", LOG)


def test_a_run_that_left_no_record_failed_outside(tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match="before its first task") as raised:
        ended(LocalStore(tmp_path), None, LOG)
    assert raised.value.fix == f"{LOG} says why"


def test_a_run_that_was_stopped_is_kept_as_interrupted(tmp_path: Path) -> None:
    store = _kept(tmp_path, None, None)
    interrupted(store, "night")
    record = records.read_run(store, "night")
    assert record is not None
    assert record.status == record.document["status"] == "interrupted"
    assert record.finished_at is not None
    interrupted(store, "unknown")
    assert records.read_run(store, "unknown") is None
