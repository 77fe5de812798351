"""Commands on what ran: runs list, runs show, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelmill.cli.options import JsonOption, StoreOption, store_and_deployment
from modelmill.cli.output import print_json, print_table, print_text
from modelmill.cli.running import print_run
from modelmill.core import records
from modelmill.core.errors import UsageError
from modelmill.core.store import Store
from modelmill.runners.conclusion import located_in
from modelmill.runners.result import RunDocument

runs_app = typer.Typer(help="What ran in a store.", no_args_is_help=True, rich_markup_mode=None)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, its first letters, or: latest.")]


def _find(store: Store, wanted: str) -> RunDocument:
    """The run of that name, the newest for ``latest``, or the only one that starts so."""
    runs = records.list_runs(store)
    found = runs[:1] if wanted == "latest" else [record for record in runs if record.run.startswith(wanted)]
    if len(found) != 1:
        what = f"{len(found)} runs start with {wanted!r}" if found else f"there is no run {wanted!r} in {store.uri}"
        raise UsageError(what, where="RUN", fix="modelmill runs list shows their names")
    return located_in(RunDocument.model_validate(found[0].document), store)


@runs_app.command("list")
def list_runs(
    store: StoreOption = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Runs shown at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List runs, the newest first."""
    opened, _ = store_and_deployment(store)
    runs = records.list_runs(opened)[:most]
    found = [located_in(RunDocument.model_validate(record.document), opened) for record in runs]
    if as_json:
        keep = {"run", "recipe", "status", "started_at", "seconds", "bundle"}
        print_json([document.model_dump(mode="json", include=keep) for document in found])
        return
    print_table(
        f"runs in {opened.uri}",
        ["run", "recipe", "status", "started", "seconds"],
        [(d.run, d.recipe, d.status.value, d.started_at, f"{d.seconds:.1f}") for d in found],
    )


@runs_app.command("show")
def show_run(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show one run: its steps, its lanes and where its outputs are."""
    opened, _ = store_and_deployment(store)
    document = _find(opened, run)
    if as_json:
        print_json(document.model_dump(mode="json", exclude={"format"}))
        return
    print_run(document)
    if document.error:
        print_text(f"error:   {document.error}")


def report(
    run: RunArgument = "latest",
    store: StoreOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE.html", help="Write it there.  [default: print its URI]")
    ] = None,
) -> None:
    """Show where a run's HTML report is, or write it to a file."""
    opened, _ = store_and_deployment(store)
    document = _find(opened, run)
    stored = opened.read(f"runs/{document.run}.html") if document.report else None
    if stored is None or document.report is None:
        what = f"the run {document.run} has no report: it is {document.status.value}"
        fix = "modelmill runs show names what ended it; mend that, then run the recipe again"
        raise UsageError(what, where="RUN", fix=fix)
    if output is None:
        print_text(document.report)
        return
    try:
        output.write_bytes(stored.content)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        what = f"{output} can't be written: there is no such folder, or it is one"
        raise UsageError(what, where="--output", fix="name a file in a folder that is there") from None
    print_text(str(output))


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(report)
    app.add_typer(runs_app, name="runs")
