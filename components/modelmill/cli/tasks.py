"""The command that an orchestrated run's containers start: task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from modelmill.cli.options import SetOption
from modelmill.cli.output import print_text
from modelmill.cli.progress import stderr_progress
from modelmill.core.stores import open_store
from modelmill.deployment import Prices
from modelmill.runners import orchestrated
from modelmill.runners.containers import LOG, Shown
from modelmill.runners.parameters import path_of_word
from modelmill.runners.result import safe_name
from modelmill.runners.showing import shower


def task(
    name: Annotated[str, typer.Argument(metavar="TASK", help="begin, a task of the line, decide or finish.")],
    store: Annotated[str, typer.Option("--store", metavar="URI", help="Where artifacts live.")],
    run: Annotated[str, typer.Option("--run", metavar="NAME", help="The orchestrator's name for the run.")],
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="DIGEST", help="What the task begin printed.")
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", metavar="PORT=KEY#OUTPUT", help="What another task made.")
    ] = None,
    overrides: SetOption = None,
    mounts: Annotated[
        list[str] | None,
        typer.Option("--mount", metavar="DIR", help="file: sources may lie in it; percent-encoded, repeatable."),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option("--folder", metavar="DIR", help="Where relative file: sources start; percent-encoded."),
    ] = None,
    core_hour: Annotated[
        float | None, typer.Option("--core-hour", metavar="PRICE", help="Of one CPU core, where a gate judges cost.")
    ] = None,
    currency: Annotated[str, typer.Option("--currency", metavar="CODE", help="Of the price.")] = "USD",
    attempts: Annotated[
        int,
        typer.Option(
            "--attempts", metavar="N", min=1, help="How often a lane's task is tried before its lane is unavailable."
        ),
    ] = 1,
    pointer: Annotated[
        Path | None, typer.Option("--pointer", metavar="FILE", help="Where the pointer goes, besides stdout.")
    ] = None,
    show: Annotated[
        list[Shown] | None, typer.Option("--show", help="What to show of it beside its log; repeatable.")
    ] = None,
    show_in: Annotated[
        str, typer.Option("--show-in", metavar="PLACE", help="Where: log, or the executor input of Kubeflow.")
    ] = LOG,
) -> None:
    """Run one task of an orchestrated run: what the compiled pipeline and the DAG start in their containers.

    Prints its pointer: a step's key, the recipe's digest (begin), the verdict (decide) or the status (finish);
    unavailable where something outside failed in a lane, in every attempt.
    """
    progress = stderr_progress(f"{name}: ")
    found = orchestrated.run_task(
        name,
        open_store(store),
        safe_name(run),
        recipe=recipe,
        inputs=inputs or [],
        overrides=overrides or [],
        mounts=[path_of_word(mount) for mount in mounts or []],
        folder=None if folder is None else Path(path_of_word(folder)),
        attempts=attempts,
        prices=None if core_hour is None else Prices(core_hour=core_hour, currency=currency),
        show=shower(show or [], show_in, progress),
        progress=progress,
    )
    if pointer is not None:
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.write_text(json.dumps(found) if pointer.suffix == ".json" else found, "utf-8")
    print_text(found)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(task)
