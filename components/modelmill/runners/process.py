"""A step in a process of its own: its memory is its own, and a crash of a native library ends the step alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from modelmill.core import errors, records, temporary
from modelmill.core.contract import JSON, Closed, Zone
from modelmill.core.documents import validate
from modelmill.core.progress import Progress
from modelmill.core.stepkey import InputDigests
from modelmill.core.stores import open_store
from modelmill.line import NODES
from modelmill.runners import container
from modelmill.steps.publish.contract import RELEASE_VARIABLES


class StepOutcome(Closed):
    """What ``modelmill step --result FILE`` writes: the result, or the error."""

    format: int = 1
    key: str | None = None
    cached: bool = False
    record: records.StepRecord | None = None
    notes: list[str] = Field(default_factory=list)
    effect: dict[str, JSON] = Field(default_factory=dict)
    error: dict[str, str | None] | None = Field(None, description="class, what, where, fix, digest")

    def raise_error(self) -> None:
        """Raise the error that the step ended with, if it did."""
        if self.error is None:
            return
        kind = getattr(errors, str(self.error["class"]), errors.ModelmillError)
        what, where, fix = str(self.error["what"]), self.error.get("where"), self.error.get("fix")
        if kind is errors.CorruptArtifactError:
            raise errors.CorruptArtifactError(what, digest=str(self.error["digest"]), where=where)
        raise kind(what, where=where, fix=fix)


def error_document(error: errors.ModelmillError) -> dict[str, str | None]:
    """An error as `StepOutcome.error` holds it."""
    digest = error.digest if isinstance(error, errors.CorruptArtifactError) else None
    return {
        "class": type(error).__name__,
        "what": error.what,
        "where": error.where,
        "fix": error.fix,
        "digest": digest,
    }


@dataclass(frozen=True)
class StepCommand:
    """The container form of one step.

    Attributes:
        step: The contract's id.
        store: The store's URI.
        settings: JSON mapping.
        inputs: Port → digest, or target → digest for a merge port.
    """

    step: str
    store: str
    settings: Mapping[str, JSON]
    inputs: InputDigests

    def arguments(self, settings_file: Path, result_file: Path) -> list[str]:
        """The command line after ``modelmill``."""
        arguments = ["step", self.step, "--store", self.store, "--settings", str(settings_file)]
        for port, at in self.inputs.items():
            named = {port: at} if isinstance(at, str) else {f"{port}.{lane}": digest for lane, digest in at.items()}
            for name, digest in named.items():
                arguments += ["--input", f"{name}={digest}"]
        return [*arguments, "--result", str(result_file)]


def run_here(command: StepCommand, progress: Progress) -> StepOutcome:
    """Run a step in this process.

    Raises:
        UsageError: The settings are not the step's.
        ModelmillError: As the step raises it.
    """
    contract = NODES[command.step].contract
    settings = validate(contract.settings, command.settings, f"settings of {command.step}", errors.UsageError)
    store = open_store(command.store)
    prepared = container.prepare(contract, settings, command.inputs, progress, store)
    found = container.run_step(store, prepared, progress)
    return StepOutcome(
        key=found.key, cached=found.cached, record=found.record, notes=list(found.notes), effect=dict(found.effect)
    )


def run_in_process(command: StepCommand) -> StepOutcome:
    """Run a step in a child process that ends with this one.

    The child's stderr is ours, so that its progress is seen; a pipe that only we hold open tells it when we are gone,
    even by SIGKILL: a training that outlives its run would keep the next one from going on with it.

    Raises:
        StepKilledError: The child ended by a signal, memory being the usual reason.
        ModelmillError: The child ended without a result.
    """
    with temporary.folder("step") as folder:
        settings_file, result_file = folder / "settings.json", folder / "result.json"
        settings_file.write_text(json.dumps(command.settings))
        # However the child ends, what it left goes with our folder.
        (folder / "tmp").mkdir()
        environment = {**environment_of(command.step), "TMPDIR": str(folder / "tmp")}
        watched, held = os.pipe()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, held)
            arguments = [*command.arguments(settings_file, result_file), "--lifeline", str(watched)]
            child = subprocess.Popen(
                [sys.executable, "-m", "modelmill.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                env=environment,
                stdout=sys.stderr,
                # Ctrl-C on a terminal is ours to answer; the child is ended below, and says nothing of its own.
                process_group=0,
                pass_fds=(watched,),
            )
            os.close(watched)
            stack.callback(child.wait)
            stack.callback(child.terminate)
            code = child.wait()
        if code < 0:
            name = signal.Signals(-code).name
            what = f"the step {command.step} was killed by {name}"
            fix = "run again; it goes on after the last finished step"
            if name == "SIGKILL":
                fix += ". If it happens again, memory is short: see the peak of the other steps in modelmill runs show"
            raise errors.StepKilledError(what, fix=fix)
        if not result_file.is_file():
            what = f"the step {command.step} ended with exit code {code} and no result"
            raise errors.ModelmillError(what, fix="this is a bug: report it with the trace above")
        return StepOutcome.model_validate_json(result_file.read_bytes())


def environment_of(step: str) -> dict[str, str]:
    """This process's environment, without the release's keys where the step is none that releases.

    Both run as one user here, so that this keeps the keys from what a step starts and logs, and not from a step that
    looks for them.
    """
    released = NODES[step].contract.zone is Zone.RELEASE
    return {name: value for name, value in os.environ.items() if released or not name.startswith(RELEASE_VARIABLES)}


def end_with_parent(lifeline: int) -> None:
    """End this process as soon as the other end of ``lifeline`` closes: its parent is gone."""

    def watch() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
