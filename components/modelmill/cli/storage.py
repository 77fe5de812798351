"""Commands on the store: push, gc."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from modelmill.cli.options import JsonOption, StoreOption, store_and_deployment
from modelmill.cli.output import megabytes, print_json, print_text
from modelmill.cli.progress import stderr_progress
from modelmill.core import gc as collector
from modelmill.core import manifest
from modelmill.core.errors import UsageError
from modelmill.core.store import hex_of


def push(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A local data set's or model's folder, or one file.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a local data set or model into the store and print the source that a recipe names it by."""
    if not data.exists():
        what = f"there is no file or folder {data}"
        raise UsageError(what, where="DATA", fix="give a local data set or model")
    opened, _ = store_and_deployment(store)
    progress = stderr_progress()
    with tempfile.TemporaryDirectory(prefix="modelmill-push-") as folder:
        directory = data
        if data.is_file():
            directory = Path(folder)
            shutil.copyfile(data, directory / data.name)
        made = manifest.build(directory, "pushed")
        if not made.files:
            what = f"the folder {data} holds no file"
            raise UsageError(what, where="DATA", fix="give a folder with a data set or a model")
        opened.put_artifact(directory, made, progress)
    # gc keeps what a document under pushed/ names: no run made it, so no run could make it again.
    opened.create(
        f"pushed/{hex_of(made.digest)}.json", manifest.canonical({"artifact": made.digest, "from": data.name})
    )
    uri = opened.artifact_uri(made.digest)
    source = uri if uri.startswith("s3://") else f"file:{uri}"
    if as_json:
        print_json({"source": source, "digest": made.digest, "bytes": made.size, "files": len(made.files)})
    else:
        print_text(source)


def gc(
    keep: Annotated[int, typer.Option("--keep", metavar="N", min=0, help="Runs whose outputs stay, the newest.")],
    store: StoreOption = None,
    grace_seconds: Annotated[
        int, typer.Option("--grace", metavar="SECONDS", min=0, help="What is younger than this stays.")
    ] = 3600,
    history: Annotated[
        int | None,
        typer.Option("--history", metavar="N", min=1, help="Moves of each channel that keep bundles.  [default: all]"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what no kept run, channel or live run needs."""
    opened, _ = store_and_deployment(store)
    found = collector.collect(opened, keep, stderr_progress(), grace_seconds, history=history, dry_run=dry_run)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    verb = "would remove" if dry_run else "removed"
    print_text(f"{verb} {len(found.artifacts)} artifacts, {megabytes(found.removed_bytes)}, from {opened.uri}")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(push)
    app.command()(gc)
