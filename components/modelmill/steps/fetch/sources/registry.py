"""Sources by scheme; a scheme's module is loaded when a recipe uses it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import cast

from modelmill.core.errors import UsageError
from modelmill.steps.fetch.sources.base import Purpose, Source

SCHEMES = {
    "file:": "modelmill.steps.fetch.sources.file",
    "package:": "modelmill.steps.fetch.sources.package",
    "hf://": "modelmill.steps.fetch.sources.hub",
    "s3://": "modelmill.steps.fetch.sources.s3",
}
EXTRAS = {"hf://": "ml", "s3://": "s3"}

Open = Callable[[str, Purpose, Sequence[Path] | None], Source]


def open_source(reference: str, purpose: Purpose, mounts: Sequence[str] | None) -> Source:
    """The source a reference names.

    Args:
        reference: ``file:PATH``, ``package:NAME/FOLDER``, ``hf://ORG/NAME@REVISION`` or ``s3://BUCKET/PREFIX``.
        purpose: What it is read for.
        mounts: Directories that file: sources may lie in; None allows any.

    Raises:
        InputError: The scheme is unknown, the reference malformed, or it names nothing.
        DeploymentError: It lies outside of the mounts.
        UsageError: What the scheme needs is not installed.
    """
    scheme = next((scheme for scheme in SCHEMES if reference.startswith(scheme)), None)
    if scheme is None:
        begins = reference.split("/")[0].split(":")[0]
        near = get_close_matches(begins, [known.rstrip(":/") for known in SCHEMES], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        what = f"{reference!r} has no scheme that can be read{hint}"
        raise purpose.error(what, where=purpose.field, fix=f"begin it with one of: {', '.join(SCHEMES)}")
    try:
        module = importlib.import_module(SCHEMES[scheme])
    except ModuleNotFoundError as error:
        what = f"{scheme} sources need the package {error.name}, which is not installed here"
        raise UsageError(
            what, where=purpose.field, fix=f"pip install 'modelmill[{EXTRAS.get(scheme, 'ml')}]'"
        ) from None
    paths = None if mounts is None else [Path(mount) for mount in mounts]
    return cast("Open", module.open_source)(reference.removeprefix(scheme), purpose, paths)
