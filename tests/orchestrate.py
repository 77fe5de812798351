"""The smallest orchestrator: each container's command line, filled in and run in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelmill.cli.main import app
from modelmill.core.errors import ModelmillError
from modelmill.runners.containers import (
    DECIDE,
    LOG,
    Container,
    Described,
    Given,
    Part,
    Pointer,
    PointerFile,
    RunName,
    ShowPlace,
)

Execute = Callable[[Container, list[str]], str | None]


@dataclass
class Orchestrated:
    """What became of each task: its pointer, an error, or None where it was skipped."""

    pointers: dict[str, str | None] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, list[str]] = field(default_factory=dict)


def orchestrate(
    described: Described,
    folder: Path,
    run: str,
    *,
    given: Mapping[str, str] | None = None,
    before: Callable[[str], None] = lambda task: None,
    execute: Execute | None = None,
) -> Orchestrated:
    """Run all containers in order; those after a failed one do not run, the last one always does.

    Args:
        described: The line.
        folder: For pointer files.
        run: The run's name.
        given: Values of the run's parameters, as text, over their defaults.
        before: Called with each task's name before it runs.
        execute: Runs one command line and returns what it said wrong, or None; in this process unless told otherwise.
    """
    found = Orchestrated()
    defaults = {item.name: str(item.default) for item in described.parameters}
    values = {**defaults, **(given or {})}
    for container in described.containers:
        waits_in_vain = any(other in found.errors or other not in found.pointers for other in container.after)
        refused = container.only_if_promoted and found.pointers.get(DECIDE) != "pass"
        if not container.always and (waits_in_vain or refused):
            if refused and not waits_in_vain:
                found.pointers[container.id] = None
            continue
        before(container.id)
        file = folder / f"{container.id}.pointer"
        arguments = found.arguments[container.id] = _filled(container, found, values, run, file)
        error = (execute or _invoke)(container, arguments)
        if error is None:
            found.pointers[container.id] = file.read_text("utf-8")
        else:
            found.errors[container.id] = error
    return found


def _filled(container: Container, found: Orchestrated, values: Mapping[str, str], run: str, file: Path) -> list[str]:
    def text(part: Part) -> str:
        match part:
            case Given(parameter):
                return values[parameter]
            case Pointer(task):
                pointer = found.pointers[task]
                assert pointer is not None
                return pointer
            case RunName():
                return run
            case PointerFile():
                return str(file)
            case ShowPlace():
                return LOG
            case _:
                return part

    return ["".join(text(part) for part in argument) for argument in container.arguments]


def _invoke(container: Container, arguments: list[str]) -> str | None:
    assert arguments[0] == "modelmill"
    with pytest.MonkeyPatch.context() as patched:
        for name, value in container.env.items():
            patched.setenv(name, value)
        result = CliRunner().invoke(app, arguments[1:])
    if result.exception is None:
        assert result.stdout.strip().splitlines()[-1] == Path(arguments[-1]).read_text("utf-8")
        return None
    assert isinstance(result.exception, ModelmillError), result.exception
    return str(result.exception)
