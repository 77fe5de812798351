"""Trains in child processes that kill themselves (SIGKILL) at given moments; run by test_retrain_resume.

Usage: killed_trainings.py DIRECTORY MODEL TRAIN TUNE [CASE]. Prints one JSON document: case → sha256 of what was
written in the end, what each attempt said, and how it ended (-9: killed).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from training_data import fine_tune, retrain

# Imported here, in the parent, what the children would each import anew.
import modelmill.tasks.metrics.accuracy
import modelmill.tasks.metrics.macro_f1
import modelmill.tasks.metrics.per_class_accuracy  # noqa: F401
from modelmill.core.progress import SilentBar, SilentProgress
from modelmill.steps.retrain import training
from modelmill.steps.retrain.contract import Inputs

# Moment → the attempts before the one that ends: where each of them dies.
CASES: dict[str, list[str]] = {
    "unbroken": [],
    "before the first step": ["bar tokenise"],
    "in the first epoch": ["step 3"],
    "between a snapshot's rename and its announcement": ["saved 2"],
    "in the middle of writing a snapshot": ["open place.json 4"],
    "in the middle of writing the best weights": ["rename best"],
    "after the last step": ["end"],
    "again and again": ["step 2", "step 5", "open place.json 3", "saved 4"],
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DeadlyBar(SilentBar):
    def __init__(self, steps: int | None) -> None:
        self._left = steps

    def advance(self, amount: float = 1) -> None:
        # The first call of the training bar tells how many steps a former attempt did.
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                die()


class DeadlyProgress(SilentProgress):
    """Kills its process where it was told to, and writes down what was said."""

    def __init__(self, moment: str, log: Path) -> None:
        self._moment, self._log, self._saved = moment, log, 0

    def fact(self, text: str) -> None:
        with self._log.open("a") as stream:
            stream.write(text + "\n")

    @contextmanager
    def bar(self, label: str, total: float | None = None, unit: str = "") -> Iterator[DeadlyBar]:
        if self._moment == f"bar {label}":
            die()
        steps = int(self._moment.split()[1]) if self._moment.startswith("step") and label == "fine-tune" else None
        yield DeadlyBar(steps)
        if self._moment == "end" and label == "fine-tune":
            die()

    def saved(self, path: Path) -> None:
        self._saved += 1
        if self._moment == f"saved {self._saved}":
            die()


def deadly_hook(moment: str) -> Callable[[str, tuple[object, ...]], None]:
    """An audit hook that kills at a system call.

    ``open place.json N``: when the last file of the N-th snapshot is opened, its tensors written. ``rename best``:
    when the best weights are written and have not got their name.
    """
    words = moment.split()
    left = [int(words[2]) if len(words) > 2 else 1]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        opened = event == "open" and words[0] == "open" and str(arguments[0]).endswith("writing-snapshot/place.json")
        renamed = event == "os.rename" and words[0] == "rename" and Path(str(arguments[1])).name.startswith("best-")
        if opened or renamed:
            left[0] -= 1
            if left[0] == 0:
                die()

    return hook


def attempt(directory: Path, inputs: Inputs, moment: str) -> int:
    child = os.fork()
    if child == 0:
        if moment.startswith(("open", "rename")):
            sys.addaudithook(deadly_hook(moment))
        written = directory / "checkpoint"
        if written.exists():
            for path in written.iterdir():
                path.unlink()
            written.rmdir()
        retrain(directory, inputs, fine_tune(epochs=3), DeadlyProgress(moment, directory / "log"))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(directory: Path, inputs: Inputs, only: list[str]) -> None:
    # One processor, so one thread: the forked children start without this process's pool of threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    training.SNAPSHOT_SECONDS = 0.0
    training.SNAPSHOT_SHARE = 0
    found = {}
    for case in only or CASES:
        place = directory / case.replace(" ", "-")
        place.mkdir(parents=True)
        codes = [attempt(place, inputs, moment) for moment in [*CASES[case], "never"]]
        files = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((place / "checkpoint").iterdir())
        }
        left = sorted(path.name for path in (place / "progress").iterdir())
        found[case] = {"codes": codes, "files": files, "log": (place / "log").read_text().splitlines(), "left": left}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:5]]
    main(paths[0], Inputs(*paths[1:]), sys.argv[5:])
