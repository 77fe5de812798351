"""Publishes and is killed with SIGKILL at many points: run as `killed_publisher.py FOLDER INPUTS COUNT`.

FOLDER holds what each start begins from: ``store`` and ``overlays.git``. A point is the number of an event that the
interpreter audits (PEP 578) in the start's own copy of that folder: a file opened, renamed, linked or removed, a folder
made, a command started. COUNT of them are spread over the assembling of the bundle; of what comes after, which is
registration, channel and commit, each is one but for what only reads the bundle. Where a command is started, the
publisher is also killed together with it, some milliseconds later; what the command has started elsewhere, as a push
does on the server, goes on.

After each kill it prints what channel and branch name, then what they name after a second start that nobody kills. The
first line is of a start that was not killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from git_servers import commits, git
from lane_artifacts import publish_settings
from modelmill.core import registry
from modelmill.core.progress import SilentProgress
from modelmill.core.store import Store
from modelmill.core.stores import open_store
from modelmill.runners import container
from modelmill.steps.publish.contract import STEP
from modelmill.steps.publish.gitops_settings import GitOps

FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.link", "os.chmod", "os.utime", "os.remove", "os.rmdir"}
TO = {"os.rename", "os.link"}
"""Of these the second argument says what comes to be."""
COMMAND = "subprocess.Popen"
OVERLAY = "overlays/banking/staging/promotion/kustomization.yaml"
LONGEST_SECONDS = 0.03


def publish(place: Path, inputs: dict[str, dict[str, str]]) -> None:
    """What a runner does for the step: assemble, store, register, move the channel, commit."""
    settings = publish_settings(git=GitOps(remote=str(place / "overlays.git")))
    store = open_store(str(place / "store"))
    container.run_step(store, container.prepare(STEP, settings, inputs, SilentProgress()), SilentProgress())


def start(place: Path, inputs: dict[str, dict[str, str]], point: int, *, later: bool = False) -> list[str]:
    """Publish in a process that dies at ``point``, where that is not 0; its events, where it ended well."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        events = _watch(place, point, later=later)
        publish(place, inputs)
        os.write(tell, json.dumps(events).encode())
        os._exit(0)
    os.close(tell)
    with os.fdopen(told) as stream:
        said = stream.read() if point == 0 else ""
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"the publisher failed at point {point}")
    return [str(event) for event in json.loads(said or "[]")]


def _watch(place: Path, point: int, *, later: bool) -> list[str]:
    events: list[str] = []
    inside = str(place)

    def watch(event: str, given: tuple[object, ...]) -> None:
        if event == COMMAND or (event in FILE_EVENTS and isinstance(given[0], str) and given[0].startswith(inside)):
            events.append(event if event == COMMAND else str(given[event in TO]))
            if len(events) == point:
                if later:
                    _kill_later(os.getpid(), point)
                else:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return events


def _kill_later(publisher: int, point: int) -> None:
    """Leave a process behind that kills the publisher and the command that it runs."""
    if os.fork() == 0:
        time.sleep(random.Random(point).uniform(0, LONGEST_SECONDS))
        children = Path(f"/proc/{publisher}/task/{publisher}/children")
        running = [int(child) for child in children.read_text().split() if int(child) != os.getpid()]
        for process in (publisher, *running):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        os._exit(0)


def look(place: Path) -> dict[str, object]:
    """What channel and branch name, and how they came there."""
    store: Store = open_store(str(place / "store"))
    shown = registry.show_channel(store, "banking", "staging")
    assert shown is not None
    record = registry.find_bundle(store, "banking", shown.bundle)
    # One commit for both: what a killed push has begun goes on at the server meanwhile.
    at = git(place / "overlays.git", "rev-parse", "main").strip()
    overlay = git(place / "overlays.git", "show", f"{at}:{OVERLAY}")
    return {
        "channel": shown.bundle,
        "moves": len(shown.history),
        "whole": record is not None and store.check_artifact(record.artifact) is None,
        "overlay": overlay,
        "commits": len(commits(place / "overlays.git", at)),
    }


def begin(base: Path, place: Path) -> Path:
    """A copy of what a start begins from."""
    for part in ("store", "overlays.git"):
        shutil.copytree(base / part, place / part)
    (place / "tmp").mkdir()
    tempfile.tempdir = str(place / "tmp")
    return place


def kill(base: Path, place: Path, inputs: dict[str, dict[str, str]], point: int, *, later: bool = False) -> None:
    """Kill a publisher, start it again, and print what was found each time."""
    start(begin(base, place), inputs, point, later=later)
    after = look(place)
    start(place, inputs, 0)
    sys.stdout.write(json.dumps({"point": place.name, "after": after, "again": look(place)}) + "\n")
    shutil.rmtree(place, ignore_errors=True)


def main(folder: Path, inputs: dict[str, dict[str, str]], count: int) -> None:
    """Kill a publisher at each point, and start it again."""
    # What is imported late is imported here, so that the events are of publishing alone.
    publish(begin(folder, folder / "warm"), inputs)
    whole = begin(folder, folder / "whole")
    events = start(whole, inputs, 0)
    sys.stdout.write(json.dumps(look(whole)) + "\n")
    recorded = 1 + max(number for number, path in enumerate(events, 1) if "/keys/" in path)
    for step in range(count):
        point = 1 + round(step * (recorded - 1) / count)
        kill(folder, folder / f"assembling-{point}", inputs, point)
    # From here on all starts find the bundle in the store, as after a kill right before its registration.
    assembled = begin(folder, folder / "assembled")
    start(assembled, inputs, recorded)
    events = start(begin(assembled, folder / "promoting"), inputs, 0)
    for point, event in enumerate(events, 1):
        if "/artifacts/" in event:
            continue  # Read, and whole already.
        kill(assembled, folder / f"promoting-{point}", inputs, point)
        if event == COMMAND:
            kill(assembled, folder / f"promoting-{point}-later", inputs, point, later=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]))
