"""Commands on models and bundles: bench, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelmill.cli.options import JsonOption
from modelmill.cli.output import megabytes, print_json, print_text
from modelmill.cli.progress import stderr_progress
from modelmill.core import bundle as bundles
from modelmill.core.errors import UsageError
from modelmill.core.stores import open_store


def local_directory(location: str) -> Path:
    """The directory of an artifact that is named by a path, or by its URI in a store on S3 (then a verified copy)."""
    if location.startswith("s3://"):
        prefix, separator, digest = location.rstrip("/").rpartition("/artifacts/")
        if not separator:
            what = f"{location} is no artifact's URI"
            raise UsageError(what, where=location, fix="give s3://BUCKET/PREFIX/artifacts/DIGEST, as run prints it")
        return open_store(prefix).get_artifact(f"sha256:{digest}", stderr_progress())
    path = Path(location.removeprefix("file:"))
    if not path.is_dir():
        what = f"there is no directory {path}"
        raise UsageError(what, where=location, fix="give the directory, or its s3:// URI, that run prints")
    return path


def verify(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="The bundle's directory, or its URI in a store.")],
    as_json: JsonOption = False,
) -> None:
    """Check a bundle offline: every file, the digest, and that the evidence is about these models."""
    found = bundles.verify(local_directory(bundle))
    if as_json:
        print_json({**vars(found), "lanes": dict(found.lanes)})
        return
    print_text(f"{found.model}: whole, {found.signature}")
    print_text(f"digest: {found.digest}")
    print_text(f"lanes:  {', '.join(f'{name} at {path}' for name, path in found.lanes.items())}")
    print_text(f"files:  {found.files} and {found.evidence} of evidence, {megabytes(found.size_bytes)}")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(verify)
