"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelmill import deployment as deployments
from modelmill.core.store import Store
from modelmill.core.stores import open_store
from modelmill.deployment import Deployment

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe's YAML file.")]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URI", help="A directory or s3://BUCKET/PREFIX.  [default: .modelmill]"),
]
DeploymentOption = Annotated[
    Path | None, typer.Option("--deployment", metavar="FILE", help="The deployment's YAML file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Set a run-time field of the recipe; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def store_and_deployment(store: str | None, deployment: Path | None = None) -> tuple[Store, Deployment]:
    """The store that the options name, and the deployment."""
    deployed = deployments.load(deployment)
    return open_store(store or deployed.store), deployed
