"""Commands for orchestrators: compile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelmill import recipe as recipes
from modelmill.cli.options import DeploymentOption, RecipeArgument, SetOption, deployment_of_pods
from modelmill.cli.output import print_text
from modelmill.line import Job
from modelmill.runners import kubeflow
from modelmill.runners.containers import describe
from modelmill.runners.parameters import for_cluster


def compile_pipeline(
    recipe: RecipeArgument,
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="The pipeline to write: a .yaml file.")],
    deployment: DeploymentOption = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="URI", help="s3://BUCKET/PREFIX.  [default: the deployment's]")
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Compile a recipe's line into a Kubeflow pipeline.

    The recipe's run-time fields become the pipeline's parameters; images, pools, resources and secrets come from the
    deployment.
    """
    located = recipes.load(recipe, overrides or [])
    deployed = deployment_of_pods(deployment, store)
    for_cluster(located)
    described = describe(Job(located, deployed))
    kubeflow.compile_to(described, output)
    print_text(f"{output}: {len(described.containers)} tasks, {len(described.parameters)} parameters")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("compile")(compile_pipeline)
