"""Scratch on S3: a local directory, what was saved of it mirrored in the bucket, a lease instead of a lock."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from modelmill.core import durable
from modelmill.core.errors import StoreError
from modelmill.core.manifest import FileEntry, canonical
from modelmill.core.progress import Progress
from modelmill.core.s3_client import Bucket
from modelmill.core.s3_transfer import DamagedError, download, upload
from modelmill.core.scratch import LocalScratch, Saved, ScratchFolder, matches
from modelmill.core.store import Document, hex_of

BEAT_SECONDS = 10.0
"""A live holder changes its lease this often."""
DEAD_SECONDS = 35.0
"""A lease that did not change for so long, by the watcher's own clock, is a dead holder's."""


class _Lease:
    """``scratch/<hex>/lease.json``, held by one live process; no clock is compared with another machine's."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket, self._name = bucket, name
        self._beats = 0
        self._version = ""
        self._token = durable.token()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="scratch-lease", daemon=True)
        self.held = False

    def acquire(self, progress: Progress) -> bool:
        """Take the lease; False where a live process holds it. A holder that may be dead is watched for a while."""
        watched, since = "", time.monotonic()
        while not self.held:
            if self._bucket.write(self._name, self._content(), absent=True):
                self._start()
                break
            document = self._bucket.read(self._name)
            if document is None:
                continue
            alive = _holder_lives(document)
            if alive is None and watched in ("", document.version):
                if not watched:
                    watched = document.version
                    progress.fact(f"waiting up to {DEAD_SECONDS:.0f} s for the last attempt's lease to run out")
                if time.monotonic() - since < DEAD_SECONDS:
                    time.sleep(1)
                    continue
            elif alive is not False:
                return False
            if self._bucket.write(self._name, self._content(), match=document.version):
                self._start()
        return True

    def release(self) -> None:
        """Give the lease back."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.held:
            self._bucket.delete(self._name, self._version)
            self.held = False

    def _start(self) -> None:
        document = self._bucket.read(self._name)
        self._version = document.version if document else ""
        self.held = True
        self._thread.start()

    def _renew(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self._beats += 1
            try:
                if not self._bucket.write(self._name, self._content(), match=self._version):
                    self.held = False
                    return
                document = self._bucket.read(self._name)
                self._version = document.version if document else ""
            except StoreError:
                # The store is away for a moment; whoever watches waits longer than three beats.
                continue

    def _content(self) -> bytes:
        return canonical({"token": self._token, "beat": self._beats, **_this_process()})


@dataclass
class S3Scratch:
    """A local scratch directory whose saved files are in the bucket too."""

    _bucket: Bucket
    _name: str
    _local: LocalScratch
    _lease: _Lease
    _progress: Progress

    @property
    def path(self) -> Path:
        """The local directory."""
        return self._local.path

    def saved(self, path: Path) -> None:
        """Store what is new of ``path``, then the index, then remove what the index no longer names."""
        index = self._local.save(path)
        if not self._lease.held:
            return
        present = {item.name for item in self._bucket.list(f"{self._name}/files/")}
        wanted = {self._file(entry): (name, entry) for name, entry in index.files().items()}
        missing = {file: wanted[file] for file in wanted if file not in present}
        total = sum(entry.size for _, entry in missing.values())
        with self._progress.bar(f"save {path.name}", total, "bytes") as bar:
            for file, (name, entry) in missing.items():
                upload(self._bucket, file, self.path / name, entry, bar)
        if self._lease.held:
            self._bucket.write(f"{self._name}/saved.json", canonical(index.model_dump(mode="json")))
            self._bucket.delete_all(sorted(present - set(wanted)))

    def clear(self) -> None:
        """Remove it here and in the bucket."""
        self._local.clear()
        if self._lease.held:
            self._bucket.delete(f"{self._name}/saved.json")
            self._bucket.delete_all([item.name for item in self._bucket.list(f"{self._name}/files/")])

    def restore(self) -> None:
        """Fetch what was saved and is not here; remove the rest."""
        if not self._lease.held:
            self._local.restore(Saved())
            return
        document = self._bucket.read(f"{self._name}/saved.json")
        try:
            index = Saved.model_validate_json(document.content) if document else Saved()
        except ValidationError:
            index = Saved()
        missing = {name: entry for name, entry in index.files().items() if not matches(self.path / name, entry)}
        total = sum(entry.size for entry in missing.values())
        with self._progress.bar("fetch the last attempt's files", total, "bytes") as bar:
            for name, entry in missing.items():
                (self.path / name).unlink(missing_ok=True)
                try:
                    download(self._bucket, self._file(entry), self.path / name, entry, bar)
                except DamagedError as error:
                    self._progress.fact(f"what the last attempt saved cannot be used: {error}")
        self._local.restore(index)

    def _file(self, entry: FileEntry) -> str:
        return f"{self._name}/files/{entry.sha256}"


class S3ScratchFolder:
    """``scratch/<hex>/`` in a bucket, with local directories in the cache."""

    def __init__(self, bucket: Bucket, cache: Path) -> None:
        self._bucket = bucket
        self._local = ScratchFolder(cache)

    @contextmanager
    def open(self, key: str, progress: Progress) -> Iterator[S3Scratch]:
        """The scratch directory of a step key, restored; an empty private one where a live process has it."""
        name = f"scratch/{hex_of(key)}"
        here = hashlib.sha256(f"{self._bucket.host} {self._bucket.uri} {key}".encode()).hexdigest()
        with self._local.open(here) as local:
            lease = _Lease(self._bucket, f"{name}/lease.json")
            if not local.private:
                lease.acquire(progress)
            try:
                scratch = S3Scratch(self._bucket, name, local, lease, progress)
                scratch.restore()
                yield scratch
            finally:
                lease.release()

    def discard(self, older_than: float) -> int:
        """Remove scratch nothing of which changed since and nobody holds; how many."""
        self._local.discard(older_than)
        living = self._bucket.now() - DEAD_SECONDS
        keys: dict[str, list[str]] = {}
        young = set()
        for item in self._bucket.list("scratch/"):
            key = item.name.split("/")[1]
            keys.setdefault(key, []).append(item.name)
            held = item.name.endswith("/lease.json") and item.changed_at > living
            if held or item.changed_at > older_than:
                young.add(key)
        for key in set(keys) - young:
            self._bucket.delete_all(keys[key])
        return len(set(keys) - young)


def _this_process() -> dict[str, str | int]:
    return {"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid()) or ""}


def _machine() -> str:
    """What a process id means something on: host, boot and process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process started, in ticks since boot (proc(5), field 22), or None where it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def _holder_lives(document: Document) -> bool | None:
    """Whether the lease's holder lives, where it runs on this machine; None where that cannot be seen from here."""
    try:
        holder = json.loads(document.content)
        if not holder["machine"] or holder["machine"] != _machine():
            return None
        return _started(int(holder["pid"])) == str(holder["started"])
    except (ValueError, KeyError, TypeError):
        return None
