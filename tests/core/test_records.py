"""Step records: what is adopted, what is made again, and why."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelmill.core import records
from modelmill.core.errors import StoreError
from modelmill.core.records import RunRecord
from modelmill.core.store import Store
from modelmill.core.stores import open_store
from stored_things import key_of, make_record, put


def test_a_stored_record_is_found_with_whole_outputs(store: Store, tmp_path: Path) -> None:
    digest = put(store, tmp_path / "made", {"model.onnx": b"onnx"})
    assert records.find(store, key_of(1)) == (None, [])
    record = make_record(key_of(1), {"model": digest})
    assert records.adopt_or_store(store, record) == record
    assert records.find(store, key_of(1)) == (record, [])


def test_a_missing_output_is_said_in_words_and_replaced(store: Store, tmp_path: Path) -> None:
    old = put(store, tmp_path / "old", {"model.onnx": b"old"})
    records.adopt_or_store(store, make_record(key_of(1), {"model": old}))
    store.delete_artifact(old)
    found, reasons = records.find(store, key_of(1))
    assert found is None
    assert reasons == ["output 'model' of export is missing from the store: made again"]
    new = put(store, tmp_path / "new", {"model.onnx": b"new"})
    record = make_record(key_of(1), {"model": new})
    assert records.adopt_or_store(store, record) == record
    assert records.find(store, key_of(1)) == (record, [])


def test_an_unreadable_record_is_replaced(store: Store, tmp_path: Path) -> None:
    digest = put(store, tmp_path / "made", {"model.onnx": b"onnx"})
    name = f"keys/{1:064x}.json"
    record = make_record(key_of(1), {"model": digest})
    for content in (b"", b"{", b"[]", json.dumps({"step": "export"}).encode(), b"\xff"):
        store.delete(name)
        store.create(name, content)
        found, reasons = records.find(store, key_of(1))
        assert found is None
        assert reasons == [f"the record of {key_of(1)} cannot be read: the step is run again"]
        assert records.adopt_or_store(store, record) == record


def test_a_record_of_a_newer_modelmill_is_refused_not_replaced(store: Store, tmp_path: Path) -> None:
    digest = put(store, tmp_path / "made", {"model.onnx": b"onnx"})
    record = make_record(key_of(1), {"model": digest})
    store.create(f"keys/{1:064x}.json", json.dumps({"format": 2, "new": True}).encode())
    for attempt in (lambda: records.find(store, key_of(1)), lambda: records.adopt_or_store(store, record)):
        with pytest.raises(StoreError, match="written by a newer modelmill"):
            attempt()


def test_all_of_sixteen_attempts_agree_on_one_measured_output(store: Store, tmp_path: Path) -> None:
    def attempt(writer: int) -> str:
        mine = open_store(store.uri)
        digest = put(mine, tmp_path / f"made-{writer}", {"measurements.json": b"%d" % writer})
        return records.adopt_or_store(mine, make_record(key_of(7), {"measurements": digest})).outputs["measurements"]

    with ThreadPoolExecutor(16) as pool:
        agreed = set(pool.map(attempt, range(16)))
    assert len(agreed) == 1
    found, _ = records.find(store, key_of(7))
    assert found is not None
    assert {found.outputs["measurements"]} == agreed


def test_runs_are_listed_newest_first(store: Store) -> None:
    for day in (2, 1, 3):
        run = RunRecord(
            run=f"run-{day}", recipe=key_of(0), status="running", started_at=f"2026-01-0{day}T00:00:00+00:00"
        )
        records.save_run(store, run)
        records.save_run(store, run.model_copy(update={"status": "promoted", "document": {"run": run.run}}))
    store.create("runs/damaged.json", b"{")
    listed = records.list_runs(store)
    assert [run.run for run in listed] == ["run-3", "run-2", "run-1"]
    assert {run.status for run in listed} == {"promoted"}
    assert records.read_run(store, "run-2") == listed[1]
    assert records.read_run(store, "run-4") is None
    with pytest.raises(StoreError, match="run damaged cannot be read"):
        records.read_run(store, "damaged")
