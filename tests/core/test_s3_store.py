"""What S3 adds: parts, checksums, credentials, retries, lost answers, the cache."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from flaky_proxy import Fault, Proxy, flaky_proxy
from modelmill.core.errors import CorruptArtifactError, OutsideError, StoreError, UsageError
from modelmill.core.manifest import build
from modelmill.core.progress import Bar
from modelmill.core.store import Store, hex_of
from modelmill.core.stores import open_store
from seaweed import Seaweed, client_of, seaweed
from stored_things import SILENT, contents, key_of, make_directory, put

LARGE = (16 << 20) + 12345


class CountingProgress:
    """Counts what bars were given."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, float | None, str]] = []
        self.done: list[float] = []
        self._lock = threading.Lock()

    def fact(self, text: str) -> None:
        pass

    def saved(self, path: Path) -> None:
        pass

    @contextmanager
    def bar(self, label: str, total: float | None = None, unit: str = "") -> Iterator[Bar]:
        self.bars.append((label, total, unit))
        self.done.append(0)
        yield self

    def advance(self, amount: float = 1) -> None:
        with self._lock:
            self.done[-1] += amount

    def note(self, text: str) -> None:
        pass


@pytest.fixture
def proxy(s3_server: Seaweed, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Requests of stores opened from now on go through it."""
    with flaky_proxy(s3_server.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "4")
        yield running


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(
    s3_store: Store, s3_server: Seaweed, tmp_path: Path
) -> None:
    made = make_directory(tmp_path / "made", {"model.onnx": os.urandom(LARGE), "small": b"x"})
    manifest = build(made, "model")
    progress = CountingProgress()
    s3_store.put_artifact(made, manifest, progress)
    client = client_of(s3_server)
    key = f"{s3_store.artifact_uri(manifest.digest)}/".removeprefix(f"s3://{s3_server.bucket}/")
    large = client.head_object(Bucket=s3_server.bucket, Key=key + "model.onnx", ChecksumMode="ENABLED")
    small = client.head_object(Bucket=s3_server.bucket, Key=key + "small", ChecksumMode="ENABLED")
    client.close()
    assert large["ETag"].endswith('-3"')
    assert large["Metadata"]["sha256"] == manifest.files["model.onnx"].sha256
    assert "-" not in small["ETag"]
    assert small["ChecksumSHA256"] == "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="
    assert s3_store.check_artifact(manifest.digest) is None
    found = s3_store.get_artifact(manifest.digest, progress)
    assert contents(found, manifest) == contents(made, manifest)
    assert progress.bars == [("store model", LARGE + 1, "bytes"), ("fetch model", LARGE + 1, "bytes")]
    assert progress.done == [LARGE + 1, LARGE + 1]


def test_a_large_file_that_changed_is_not_completed(s3_store: Store, tmp_path: Path) -> None:
    made = make_directory(tmp_path / "made", {"model.onnx": bytes(LARGE)})
    manifest = build(made, "model")
    make_directory(made, {"model.onnx": bytes(LARGE - 1) + b"x"})
    with pytest.raises(StoreError, match="changed while it was stored"):
        s3_store.put_artifact(made, manifest, SILENT)
    assert s3_store.check_artifact(manifest.digest) == "is missing"
    assert list(s3_store.list_artifacts()) == []
    assert s3_store.discard_leftovers(s3_store.now() + 60).count == 0


def test_the_cache_is_used_and_a_damaged_copy_is_fetched_again(s3_store: Store, tmp_path: Path) -> None:
    files = {"model.onnx": b"onnx", "deep/vocab.txt": b"a"}
    digest = put(s3_store, tmp_path / "made", files)
    progress = CountingProgress()
    copy = s3_store.get_artifact(digest, progress)
    assert copy == tmp_path / "cache" / "artifacts" / hex_of(digest)
    assert s3_store.get_artifact(digest, progress) == copy
    assert len(progress.bars) == 1
    (copy / "model.onnx").chmod(0o644)
    (copy / "model.onnx").write_bytes(b"X")
    assert contents(s3_store.get_artifact(digest, progress), build(tmp_path / "made", "model")) == files
    assert len(progress.bars) == 2


def test_eight_downloaders_fetch_each_file_once(proxy: Proxy, s3_uri: str, tmp_path: Path) -> None:
    digest = put(open_store(s3_uri), tmp_path / "made", {"model.onnx": os.urandom(100_000)})
    proxy.seen.clear()
    stores = [open_store(s3_uri) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda store: store.get_artifact(digest, SILENT), stores))
    assert len(found) == 1
    assert sum(line.startswith("GET") and line.endswith("model.onnx") for line in proxy.seen) == 1


@pytest.mark.parametrize(
    ("key", "secret", "code"),
    [("millwriter", "wrong-and-secret", "SignatureDoesNotMatch"), ("nobody", "wrong-and-secret", "InvalidAccessKeyId")],
)
def test_wrong_credentials_are_said_without_the_secret(
    s3_uri: str, s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str, secret: str, code: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    store = open_store(s3_uri)
    attempts = (
        lambda: store.read("keys/x.json"),
        lambda: store.create("keys/x.json", b""),
        lambda: store.check_artifact(key_of(1)),
        lambda: list(store.list_artifacts()),
        lambda: put(store, tmp_path / "made", {"a": b"a"}),
    )
    for attempt in attempts:
        with pytest.raises(StoreError, match=code) as caught:
            attempt()
        assert caught.value.exit_code == 5
        said = "".join(traceback.format_exception(caught.value))
        assert secret not in said
        assert f"the store {s3_uri} at {s3_server.endpoint.removeprefix('http://')}" in said
        assert "AWS_SECRET_ACCESS_KEY" in said


def test_no_credentials_are_said(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="no credentials for the store"):
        open_store(s3_uri).read("keys/x.json")


def test_who_may_only_read_reads_and_is_told_so(
    s3_store: Store, s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digest = put(s3_store, tmp_path / "made", {"a": b"a"})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.reader_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.reader_secret_key)
    reader = open_store(s3_store.uri)
    assert (reader.get_artifact(digest, SILENT) / "a").read_bytes() == b"a"
    for attempt in (lambda: reader.create("keys/x.json", b""), lambda: reader.delete_artifact(digest)):
        with pytest.raises(StoreError, match=r"forbids it \(AccessDenied\)|does not remove objects \(AccessDenied\)"):
            attempt()
    assert s3_store.check_artifact(digest) is None


def test_a_bucket_that_is_not_there_is_said(s3_uri: str, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket/prefix")
    for attempt in (
        lambda: store.read("keys/x.json"),
        lambda: store.create("keys/x.json", b""),
        lambda: list(store.list_artifacts()),
        lambda: put(store, tmp_path / "made", {"a": b"a"}),
    ):
        with pytest.raises(StoreError, match="there is no bucket no-such-bucket") as caught:
            attempt()
        assert "create the bucket" in str(caught.value)


def test_a_server_that_is_away_is_said_after_a_few_attempts(s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"cannot be reached at 127\.0\.0\.1:9") as caught:
        open_store(s3_uri).read("keys/x.json")
    assert isinstance(caught.value, OutsideError)
    assert "AWS_ENDPOINT_URL" in str(caught.value)


def test_a_server_that_goes_away_in_the_middle_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with seaweed(tmp_path / "server") as server:
        for name, value in server.environment(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{server.bucket}/prefix")
        made = make_directory(tmp_path / "made", {"a": bytes(LARGE), "b": b"b"})

        class Killer(CountingProgress):
            def advance(self, amount: float = 1) -> None:
                super().advance(amount)
                server.kill()

        with pytest.raises(StoreError, match="cannot be reached"):
            store.put_artifact(made, build(made, "model"), Killer())


def test_a_busy_server_is_asked_again(proxy: Proxy, s3_uri: str, tmp_path: Path) -> None:
    store = open_store(s3_uri)
    for method in ("PUT", "PUT", "GET", "HEAD"):
        proxy.faults.append((lambda seen, _, method=method: seen == method, Fault.BUSY))
    digest = put(store, tmp_path / "made", {"model.onnx": b"onnx"})
    assert (store.get_artifact(digest, SILENT) / "model.onnx").read_bytes() == b"onnx"
    assert proxy.faults == []


def test_a_server_that_stays_busy_is_said(proxy: Proxy, s3_uri: str) -> None:
    proxy.faults.extend([(lambda *_: True, Fault.BUSY)] * 10)
    with pytest.raises(StoreError, match="still answers 503 SlowDown after retries"):
        open_store(s3_uri).read("keys/x.json")
    assert len(proxy.seen) == 4


def test_a_refusal_is_not_asked_again(proxy: Proxy, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="does not accept these credentials"):
        open_store(s3_uri).read("keys/x.json")
    assert len(proxy.seen) == 1


def test_a_write_whose_answer_was_lost_is_known_as_ones_own(proxy: Proxy, s3_uri: str) -> None:
    store = open_store(s3_uri)
    proxy.faults.append((lambda method, _: method == "PUT", Fault.LOST))
    assert store.create("keys/x.json", b"one")
    document = store.read("keys/x.json")
    assert document is not None
    proxy.faults.append((lambda method, _: method == "PUT", Fault.LOST))
    assert store.replace("keys/x.json", b"two", document.version)
    proxy.faults.append((lambda method, _: method == "PUT", Fault.LOST))
    assert not store.create("keys/x.json", b"two")
    assert sum(line.startswith("PUT") for line in proxy.seen) == 6


def test_a_completion_whose_answer_was_lost_is_a_completion(proxy: Proxy, s3_uri: str, tmp_path: Path) -> None:
    store = open_store(s3_uri)
    proxy.faults.append((lambda method, path: method == "POST" and "uploadId" in path, Fault.LOST))
    digest = put(store, tmp_path / "made", {"model.onnx": bytes(LARGE)})
    assert proxy.faults == []
    assert store.check_artifact(digest) is None


def test_a_download_that_breaks_goes_on_where_it_broke(proxy: Proxy, s3_uri: str, tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    store = open_store(s3_uri)
    digest = put(store, tmp_path / "made", {"model.onnx": content})
    for _ in range(2):
        proxy.faults.append((lambda method, path: method == "GET" and path.endswith("model.onnx"), Fault.CUT))
    found = (store.get_artifact(digest, SILENT) / "model.onnx").read_bytes()
    assert hashlib.sha256(found).digest() == hashlib.sha256(content).digest()
    assert proxy.faults == []


def test_open_uploads_of_dead_writers_are_aborted(s3_store: Store, s3_server: Seaweed) -> None:
    client = client_of(s3_server)
    prefix = s3_store.uri.removeprefix(f"s3://{s3_server.bucket}/")
    for key in (f"{prefix}/artifacts/{0:064x}/model.onnx", "another-prefix/file"):
        client.create_multipart_upload(Bucket=s3_server.bucket, Key=key)
    assert s3_store.discard_leftovers(s3_store.now() - 60).count == 0
    assert s3_store.discard_leftovers(s3_store.now() + 60).count == 1
    left = client.list_multipart_uploads(Bucket=s3_server.bucket, Prefix="another-prefix/")
    client.close()
    assert len(left["Uploads"]) == 1


def test_a_mark_that_outlived_its_collector_stops_nobody(
    s3_store: Store, s3_server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = put(s3_store, tmp_path / "made", {"a": b"a"})
    client = client_of(s3_server)
    prefix = s3_store.uri.removeprefix(f"s3://{s3_server.bucket}/")
    client.put_object(Bucket=s3_server.bucket, Key=f"{prefix}/retiring/{hex_of(digest)}", Body=b"dead")
    client.close()
    assert s3_store.retire_artifact(digest, s3_store.now() + 60) is None
    monkeypatch.setattr("modelmill.core.s3_artifacts.ABANDONED_SECONDS", 2.0)
    assert s3_store.renew_artifact(digest)
    assert s3_store.check_artifact(digest) is None


def test_without_boto3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("modelmill.core.s3")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "boto3", None)
    importlib.invalidate_caches()
    with pytest.raises(UsageError, match="needs boto3") as caught:
        open_store("s3://models/prefix")
    assert "modelmill[s3]" in str(caught.value)


def test_a_missing_object_is_corruption_not_a_missing_bucket(s3_store: Store) -> None:
    with pytest.raises(CorruptArtifactError, match="is missing"):
        s3_store.get_artifact(key_of(1), SILENT)
