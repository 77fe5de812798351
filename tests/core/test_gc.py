"""What a collection keeps, what it removes, and what it never takes from a live run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flaky_proxy import Fault, flaky_proxy
from modelmill.core import records
from modelmill.core.errors import StoreError, UsageError
from modelmill.core.gc import GcReport, collect
from modelmill.core.leases import lease, leases
from modelmill.core.records import RunRecord
from modelmill.core.s3_artifacts import S3Artifacts
from modelmill.core.store import Store, hex_of
from modelmill.core.stores import open_store
from seaweed import Seaweed
from stored_things import SILENT, key_of, make_record, put

NOW = 0.0


def collect_now(store: Store, keep: int = 0, *, dry_run: bool = False) -> GcReport:
    """Collect without grace, once all that lies there is older than a second (S3's resolution)."""
    time.sleep(1.1 if store.uri.startswith("s3://") else 0.05)
    return collect(store, keep, SILENT, NOW, dry_run=dry_run)


def add_run(store: Store, number: int, at: Path, *, status: str = "promoted") -> str:
    """A run with one step; the digest of its output."""
    digest = put(store, at / f"run-{number}", {"model.onnx": b"%d" % number})
    records.adopt_or_store(store, make_record(key_of(number), {"model": digest}))
    document = {"steps": [{"name": "export", "key": key_of(number)}]}
    started = f"2026-01-01T00:00:{number:02d}+00:00"
    run = RunRecord(run=f"run-{number}", recipe=key_of(0), status=status, started_at=started, document=document)
    records.save_run(store, run)
    return digest


def test_the_last_runs_keep_what_their_steps_stored(store: Store, tmp_path: Path) -> None:
    digests = [add_run(store, number, tmp_path) for number in range(1, 5)]
    report = collect_now(store, keep=2)
    assert report.runs_kept == 2
    assert report.artifacts == sorted(digests[:2])
    assert report.records == [key_of(1), key_of(2)]
    assert report.removed_bytes > 0
    assert [store.check_artifact(digest) for digest in digests] == ["is missing", "is missing", None, None]
    assert records.find(store, key_of(1)) == (None, [])
    assert records.find(store, key_of(4))[0] is not None
    assert collect_now(store, keep=2).artifacts == []


def test_a_dry_run_says_the_same_and_removes_nothing(store: Store, tmp_path: Path) -> None:
    digests = [add_run(store, number, tmp_path) for number in range(1, 3)]
    said = collect_now(store, keep=1, dry_run=True)
    assert said.artifacts == [digests[0]]
    assert said.records == [key_of(1)]
    assert store.check_artifact(digests[0]) is None
    done = collect_now(store, keep=1)
    assert (done.artifacts, done.records) == (said.artifacts, said.records)


def test_the_registry_keeps_its_bundles_for_ever(store: Store, tmp_path: Path) -> None:
    bundle = put(store, tmp_path / "bundle", {"model.onnx": b"bundle"})
    other = put(store, tmp_path / "other", {"model.onnx": b"other"})
    pushed = put(store, tmp_path / "pushed", {"rows.jsonl": b"{}"})
    store.create("registry/banking77/history/1.json", json.dumps({"bundle": bundle}).encode())
    store.create("pushed/banking77.json", json.dumps({"digest": pushed}).encode())
    assert collect_now(store).artifacts == [other]
    assert store.check_artifact(bundle) is None
    assert store.check_artifact(pushed) is None


def test_what_is_younger_than_the_grace_age_stays(store: Store, tmp_path: Path) -> None:
    digest = put(store, tmp_path / "made", {"model.onnx": b"young"})
    assert collect(store, 0, SILENT).artifacts == []
    assert store.check_artifact(digest) is None


def test_a_live_run_keeps_what_it_stored_or_adopted_since_it_started(store: Store, tmp_path: Path) -> None:
    adopted, old = add_run(store, 1, tmp_path), add_run(store, 2, tmp_path)
    time.sleep(1.1)
    with lease(store, "run-9"):
        assert records.find(store, key_of(1))[0] is not None
        made = put(store, tmp_path / "made", {"model.onnx": b"made"})
        report = collect_now(store)
        assert report.live_runs == ["run-9"]
        assert report.artifacts == [old]
        assert store.check_artifact(adopted) is None
        assert store.check_artifact(made) is None
        assert records.find(store, key_of(1))[0] is not None
    assert collect_now(store).artifacts == sorted([adopted, made])


def test_a_lease_is_renewed_while_it_is_held_and_made_again_when_it_was_removed(store: Store) -> None:
    with lease(store, "run-1", beat_seconds=0.2):
        [held] = leases(store, store.now())
        assert held.live
        assert held.run == "run-1"
        assert not leases(store, store.now() + 200)[0].live
        before = store.read(held.name)
        store.delete(held.name)
        wait_for(lambda: store.read(held.name) is not None)
        after = store.read(held.name)
        assert before is not None
        assert after is not None
        assert after.content != before.content
    assert leases(store, store.now()) == []


def test_scratch_and_leftovers_are_removed(store: Store) -> None:
    with store.open_scratch(key_of(1), SILENT) as scratch:
        (scratch.path / "state").write_bytes(b"old")
        scratch.saved(scratch.path / "state")
    assert collect(store, 0, SILENT).scratch == 0
    if store.uri.startswith("s3://"):
        assert store.discard_scratch(store.now() + 60) == 1
    else:
        assert collect_now(store).scratch == 1


def test_a_record_whose_outputs_are_gone_goes_too(store: Store, tmp_path: Path) -> None:
    digest = put(store, tmp_path / "made", {"model.onnx": b"x"})
    records.adopt_or_store(store, make_record(key_of(1), {"model": digest}))
    store.create(f"keys/{2:064x}.json", b"unreadable")
    store.delete_artifact(digest)
    assert collect_now(store).records == [key_of(1), key_of(2)]


def test_a_store_with_documents_of_a_newer_modelmill_is_left_alone(store: Store, tmp_path: Path) -> None:
    digest = put(store, tmp_path / "made", {"model.onnx": b"x"})
    for name in ("runs/new.json", f"keys/{3:064x}.json"):
        store.create(name, b'{"format": 2}')
        with pytest.raises(StoreError, match="newer modelmill"):
            collect_now(store)
        store.delete(name)
    assert store.check_artifact(digest) is None


@pytest.mark.parametrize("name", ["registry/m/bundles/x.json", "runs/damaged.json"])
def test_a_store_with_a_damaged_document_is_left_alone(store: Store, tmp_path: Path, name: str) -> None:
    digest = put(store, tmp_path / "needed", {"model.onnx": b"needed"})
    store.create(name, b'{"bundle": "sha25')
    with pytest.raises(StoreError, match="nothing was removed") as caught:
        collect_now(store)
    assert caught.value.where == name
    assert store.check_artifact(digest) is None


def test_a_negative_number_of_runs_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="cannot keep -1 runs"):
        collect(store, -1, SILENT)


def test_collectors_and_adopters_at_once_lose_nothing_adopted(store: Store, tmp_path: Path) -> None:
    """Adopters renew old artifacts while collectors without any grace or lease look for them."""
    count = 12
    digests = [put(store, tmp_path / f"made-{number}", {"f": b"%d" % number}) for number in range(count)]
    for number, digest in enumerate(digests):
        records.adopt_or_store(store, make_record(key_of(number), {"model": digest}))
    time.sleep(1.1)
    collectors = [open_store(store.uri) for _ in range(2)]
    adopters = [open_store(store.uri) for _ in range(2)]
    cutoff = store.now()
    start = threading.Barrier(4)
    adopted: list[str] = []

    def remove(mine: Store) -> list[str]:
        start.wait()
        return [digest for digest in digests if mine.retire_artifact(digest, cutoff) is not None]

    def adopt(mine: Store) -> None:
        start.wait()
        for number in reversed(range(count)):
            record, _ = records.find(mine, key_of(number))
            if record is not None:
                adopted.extend(record.outputs.values())

    with ThreadPoolExecutor(4) as pool:
        removing = [pool.submit(remove, mine) for mine in collectors]
        adopting = [pool.submit(adopt, mine) for mine in adopters]
        removed = [digest for future in removing for digest in future.result()]
        for future in adopting:
            future.result()
    assert not set(adopted) & set(removed)
    assert len(removed) == len(set(removed))
    assert all(store.check_artifact(digest) is None for digest in adopted)
    assert {hex_of(digest) for digest in [*adopted, *removed]} == {hex_of(digest) for digest in digests}


def test_what_is_stored_or_renewed_just_after_a_collector_looked_at_the_clock_stays(
    store: Store, tmp_path: Path
) -> None:
    for number in range(20):
        cutoff = store.now()
        digest = put(store, tmp_path / f"made-{number}", {"f": b"%d" % number})
        assert store.retire_artifact(digest, cutoff) is None
        cutoff = store.now()
        assert store.renew_artifact(digest)
        assert store.retire_artifact(digest, cutoff) is None


def test_writers_and_collectors_at_once_leave_what_was_written_whole(store: Store, tmp_path: Path) -> None:
    """The same bytes are stored again and again while a collector without grace removes them."""
    content = {"a": b"a" * 1000, "deep/b": b"b" * 1000}
    put(store, tmp_path / "first", content)
    time.sleep(1.1)
    cutoff = store.now()
    stop = threading.Event()
    collector = open_store(store.uri)

    def remove(digest: str) -> None:
        while not stop.is_set():
            collector.retire_artifact(digest, cutoff)

    digest = put(store, tmp_path / "again", content)
    with ThreadPoolExecutor(1) as pool:
        removing = pool.submit(remove, digest)
        for round in range(3):
            put(store, tmp_path / f"round-{round}", content)
            assert store.check_artifact(digest) is None
        stop.set()
        removing.result()


def adopt_while_a_collector_is_held(
    server: Seaweed, store: Store, at: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> tuple[str, bool, bool]:
    """Renew an old artifact while a collector's first request of a kind is on its way.

    Returns:
        The artifact's digest, whether the collector removed it, whether the adopter may rely on it.
    """
    digest = put(store, at / "made", {"a": b"a", "b": b"b"})
    time.sleep(1.1)
    cutoff = store.now()
    with flaky_proxy(server.endpoint) as proxy, ThreadPoolExecutor(2) as pool:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        collector = open_store(store.uri)
        proxy.faults.append((lambda seen, where: seen == method and path in where, Fault.HELD))
        removing = pool.submit(collector.retire_artifact, digest, cutoff)
        assert proxy.held.wait(20)
        adopting = pool.submit(store.renew_artifact, digest)
        with pytest.raises(TimeoutError):
            adopting.result(timeout=1)
        proxy.go_on.set()
        return digest, removing.result(30) is not None, adopting.result(30)


def test_a_collector_that_has_not_looked_yet_spares_what_is_adopted(
    s3_server: Seaweed, s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, removed, adopted = adopt_while_a_collector_is_held(
        s3_server, s3_store, tmp_path, monkeypatch, "GET", "list-type=2"
    )
    assert (removed, adopted) == (False, True)
    assert s3_store.check_artifact(digest) is None


def test_a_collector_that_has_looked_is_waited_for_and_takes_it(
    s3_server: Seaweed, s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, removed, adopted = adopt_while_a_collector_is_held(
        s3_server, s3_store, tmp_path, monkeypatch, "DELETE", "manifest.json"
    )
    assert (removed, adopted) == (True, False)
    assert s3_store.check_artifact(digest) == "is missing"


def test_an_output_stored_while_a_collector_takes_it_is_stored_whole(
    s3_server: Seaweed, s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer finds all files there; the collector, which has looked before, removes them under it."""
    files = {"a": b"a", "b": b"b"}
    digest = put(s3_store, tmp_path / "made", files)
    time.sleep(1.1)
    cutoff = s3_store.now()
    with flaky_proxy(s3_server.endpoint) as proxy, ThreadPoolExecutor(2) as pool:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        collector = open_store(s3_store.uri)
        proxy.faults.append((lambda method, path: method == "DELETE" and "manifest.json" in path, Fault.HELD))
        removing = pool.submit(collector.retire_artifact, digest, cutoff)
        assert proxy.held.wait(20)
        storing = pool.submit(put, s3_store, tmp_path / "again", files)
        with pytest.raises(TimeoutError):
            storing.result(timeout=1)
        proxy.go_on.set()
        assert removing.result(30) is not None
        assert storing.result(30) == digest
    assert s3_store.check_artifact(digest) is None


def wait_for(what: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.05)


def test_what_a_collector_had_looked_at_before_is_not_renewed_when_it_has_ended(
    s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The narrowest order of both: it lists, the manifest is written anew, it removes all, and only then is looked."""
    store, collector = open_store(s3_uri), open_store(s3_uri)
    digest = put(store, tmp_path / "made", {"f": b"1"})
    time.sleep(1.1)
    cutoff = store.now()
    listed, written = threading.Event(), threading.Event()
    looks: Any = S3Artifacts._retiring
    removes: Any = S3Artifacts._remove

    def remove(self: S3Artifacts, *arguments: Any) -> Any:
        listed.set()
        assert written.wait(20)
        return removes(self, *arguments)

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(S3Artifacts, "_remove", remove)
        removing = pool.submit(collector.retire_artifact, digest, cutoff)
        assert listed.wait(20)

        def look(self: S3Artifacts, *arguments: Any) -> Any:
            written.set()
            assert removing.result(20) is not None
            return looks(self, *arguments)

        monkeypatch.setattr(S3Artifacts, "_retiring", look)
        assert not store.renew_artifact(digest)
    assert store.check_artifact(digest) == "is missing"
