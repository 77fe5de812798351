"""Writers of a registry in processes of their own: run as a script, so that no library's threads are forked.

``writers URI`` races eight writers with ten moves each, ``pinned URI`` the same while a person rolls back and lifts the
pin; ``killed URI`` kills a writer sixty times, and looks at the channel each time. They print what they found as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from typing import cast

from modelmill.core import channels, registry
from modelmill.core.progress import SilentProgress
from modelmill.core.store import Store
from modelmill.core.stores import open_store

KILLS = 60


def digest(name: object) -> str:
    """A digest that stands for ``name``."""
    return "sha256:" + hashlib.sha256(str(name).encode()).hexdigest()


def promote(store: Store, name: object, channel: str = "staging") -> channels.Moved:
    """Register the bundle ``name`` and let the channel name it."""
    registry.register_bundle(store, "banking", digest(name), digest(f"artifact {name}"), "run")
    return channels.publish(store, "banking", channel, digest(name), "run")


def writers(uri: str) -> object:
    """Exit codes of eight writers."""
    started = []
    for writer in range(8):
        process = os.fork()
        if process == 0:
            store = open_store(uri)
            for number in range(10):
                promote(store, f"{writer}.{number}")
            os._exit(0)
        started.append(process)
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started]


def pinned(uri: str) -> object:
    """Exit codes of eight writers and of a person who rolls back to the bundle ``first`` and lifts the pin, six times.

    The store names that bundle already.
    """
    process = os.fork()
    if process == 0:
        store = open_store(uri)
        record = registry.find_bundle(store, "banking", digest("first"))
        assert record is not None
        for turn in range(6):
            channels.roll_back(store, "banking", "staging", record, by="ada", why=str(turn), progress=SilentProgress())
            time.sleep(0.02)
            channels.unpin(store, "banking", "staging", by="ada", why=None)
        os._exit(0)
    return [*cast("list[int]", writers(uri)), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])]


def killed(uri: str) -> object:
    """After each kill: moves in the history, and whether the registry knows the channel's bundle."""
    generator = random.Random(0)
    found = []
    for attempt in range(KILLS):
        begun, begin = os.pipe()
        process = os.fork()
        if process == 0:
            store, number = open_store(uri), 0
            while True:
                promote(store, f"{attempt}.{number}")
                if number == 0:
                    os.write(begin, b".")
                number += 1
        os.close(begin)
        os.read(begun, 1)
        os.close(begun)
        time.sleep(generator.uniform(0, 0.03))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        found.append(_look(uri))
    return found


def _look(uri: str) -> object:
    store = open_store(uri)
    shown = registry.show_channel(store, "banking", "staging")
    assert shown is not None
    return [len(shown.history), registry.find_bundle(store, "banking", shown.bundle) is not None]


if __name__ == "__main__":
    work = {"writers": writers, "pinned": pinned, "killed": killed}[sys.argv[1]]
    sys.stdout.write(json.dumps(work(sys.argv[2])))
