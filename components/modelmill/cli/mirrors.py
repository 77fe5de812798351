"""The command on mirrors of the registry: mirror."""

from __future__ import annotations

from typing import Annotated

import typer

from modelmill.cli.options import DeploymentOption, JsonOption, StoreOption, store_and_deployment
from modelmill.cli.output import print_json, print_table
from modelmill.cli.progress import stderr_progress
from modelmill.core import registry
from modelmill.core.errors import UsageError
from modelmill.steps.publish import mirrors


def mirror(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name in the registry.")],
    every: Annotated[
        bool, typer.Option("--all", help="Every registered bundle, not only what was missed and what channels name.")
    ] = False,
    store: StoreOption = None,
    deployment: DeploymentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the deployment's mirrors of the registry up to date: bundles that they missed, what channels name."""
    opened, deployed = store_and_deployment(store, deployment)
    if deployed.mirrors is None or not (deployed.mirrors.mlflow or deployed.mirrors.hub):
        what = "the deployment names no mirror of the registry"
        fix = "give --deployment FILE with mirrors: {mlflow: {address: …}} or mirrors: {hub: {repository: …}}"
        raise UsageError(what, where="--deployment", fix=fix)
    known = [record.bundle for record in registry.bundles(opened, model)]
    if not known:
        what = f"no bundle of {model} is registered in {opened.uri}"
        fix = f"the registry has: {', '.join(registry.models(opened)) or 'no model yet'}"
        raise UsageError(what, where="MODEL", fix=fix)
    bundles = known if every else []
    found = mirrors.follow(opened, deployed.mirrors, model, stderr_progress(), bundles=bundles)
    if as_json:
        print_json([mirrored.facts() for mirrored in found])
    else:
        rows = [(mirrored.mirror, mirrored.where, mirrored.state.value, mirrored.words) for mirrored in found]
        print_table(f"mirrors of {model}", ["mirror", "where", "state", "what"], rows)
    for mirrored in found:
        if mirrored.error is not None:
            raise mirrored.error


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(mirror)
