"""The command that a step's Kubeflow component runs: component."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelmill.cli.output import print_json
from modelmill.cli.progress import stderr_progress
from modelmill.core.contract import JSON
from modelmill.core.errors import UsageError
from modelmill.core.stores import open_store
from modelmill.runners.components import (
    CLASSIFICATION,
    DECISION,
    METRICS,
    STORE,
    component_named,
    parsed,
)
from modelmill.runners.confusion import matrix_of
from modelmill.runners.executor import Executor, numbers_of
from modelmill.runners.standalone import run_component

MOUNTS = "mounts"
"""The parameter that says which directories ``file:`` sources may lie in."""


def component(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The step: fetch, evaluate-baseline, …")],
    inputs: Annotated[
        list[str] | None, typer.Option("--input", metavar="NAME=PATH", help="An input artifact's directory.")
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="NAME=PATH", help="Where an output is to lie; nothing may lie there yet."),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter; lists and mappings as JSON.")
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="URI", help="Where publish writes, and what is served lies.")
    ] = None,
    executor_input: Annotated[
        str | None,
        typer.Option(
            "--executor-input",
            metavar="JSON",
            help="Kubeflow's {{$}}: gives parameters, and takes what its pages show.",
        ),
    ] = None,
) -> None:
    """Run one step on directories, without a recipe and a store: what a step does in somebody else's pipeline.

    An input is what another step made, or a directory of the same form that anybody made. Each step's README lists
    inputs, outputs and parameters.
    """
    found = component_named(name)
    executor = Executor(executor_input) if executor_input is not None else None
    parameters: dict[str, JSON] = dict(executor.parameters) if executor else {}
    parameters |= {key: parsed(found, key, value) for key, value in _pairs("--set", sets)}
    if executor and any(item.name == MOUNTS for item in found.parameters):
        # A container has files that are nobody's data: what may be read is said, not assumed.
        parameters.setdefault(MOUNTS, [])
    where = store or parameters.pop(STORE, None)
    given = {key: Path(value) for key, value in _pairs("--input", inputs)}
    made_at = {key: Path(value) for key, value in _pairs("--output", outputs)}
    opened = open_store(str(where)) if where is not None else None
    made = run_component(found, given, made_at, parameters, opened, stderr_progress(f"{name}: "))
    if executor:
        metadata: dict[str, dict[str, JSON]] = {METRICS: numbers_of(made.facts)}
        for item in found.outputs:
            if item.port is not None:
                metadata[item.name] = {"digest": made.digests[item.port], "step_key": made.key}
            if item.name == CLASSIFICATION and "predictions" in made_at:
                matrix = matrix_of(made_at["predictions"])
                metadata[item.name] = matrix.metadata() if matrix else {}
        executor.write({DECISION: made.facts.get("verdict")} if found.decides else {}, metadata)
    print_json({"key": made.key, "outputs": dict(made.digests), "facts": dict(made.facts)})


def _pairs(option: str, texts: list[str] | None) -> list[tuple[str, str]]:
    found = []
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not (name and equals):
            what = f"{text!r} is not of the form NAME=VALUE"
            raise UsageError(what, where=option, fix=f"write {option} NAME=VALUE")
        found.append((name, value))
    return found


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(component)
