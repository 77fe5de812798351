"""Stores a step's output and kills itself at a given point: run as `killed_writer.py URI DIRECTORY POINT...`.

A point is the number of an event that the interpreter audits (PEP 578): a file opened, renamed, linked, made
read-only or removed, a directory made, a request sent. Each point gets a process and a store of its own; point -1 is
not killed and its number of events is printed.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path

from modelmill.core import records
from modelmill.core.manifest import build
from modelmill.core.stores import open_store
from stored_things import SILENT, key_of, make_record

EVENTS = {
    "open", "os.mkdir", "os.rename", "os.link", "os.chmod", "os.utime", "os.remove", "os.rmdir", "shutil.rmtree",
    "http.client.send",
}  # fmt: skip


def store_output(uri: str, directory: Path) -> None:
    """What a runner does at the end of a step."""
    store = open_store(uri)
    manifest = build(directory, "model")
    store.put_artifact(directory, manifest, SILENT)
    records.adopt_or_store(store, make_record(key_of(1), {"model": manifest.digest}))


def run_until(point: int, uri: str, directory: Path) -> None:
    """Store the output in a child process that dies at event ``point``."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"the writer failed at point {point}")
        return
    count = 0

    def watch(event: str, _: object) -> None:
        nonlocal count
        if event in EVENTS:
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    store_output(uri, directory)
    if point < 0:
        sys.stdout.write(f"{count}\n")
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1].startswith("s3://"):
        importlib.import_module("modelmill.core.s3")
    for argument in sys.argv[3:]:
        run_until(int(argument), f"{sys.argv[1]}/point{argument}", Path(sys.argv[2]))
