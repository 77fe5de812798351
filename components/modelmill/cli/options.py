"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelmill import deployment as deployments
from modelmill.core.errors import UsageError
from modelmill.core.store import Store
from modelmill.core.stores import open_store
from modelmill.deployment import Backend, Deployment

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


def one_line(value: str | None) -> str | None:
    """A person's words for a history that others read in a terminal: one line, of printable signs.

    Raises:
        UsageError: They are blank.
    """
    if value is None:
        return None
    words = "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(value.split()))
    if not words:
        what = "a name or reason for the history is blank"
        raise UsageError(what, where="--by, --reason, --override", fix="write it, or leave the option out")
    return words


def deployment_of_pods(path: Path | None, store: str | None) -> Deployment:
    """The deployment as Kubeflow has it, whose tasks are pods, whatever a DAG's are; its store may be named anew."""
    changes = {"backend": Backend.KUBERNETES, **({} if store is None else {"store": store})}
    return deployments.load(path).model_copy(update=changes)


def store_and_deployment(store: str | None, deployment: Path | None = None) -> tuple[Store, Deployment]:
    """The store that the options name, and the deployment."""
    deployed = deployments.load(deployment)
    return open_store(deployed.store if store is None else store), deployed
