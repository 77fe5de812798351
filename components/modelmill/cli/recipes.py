"""Commands on recipes: init, check, schema."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from modelmill import recipe as recipes
from modelmill.cli.options import DeploymentOption, JsonOption, RecipeArgument, SetOption
from modelmill.cli.output import print_json, print_text
from modelmill.cli.progress import stderr_progress
from modelmill.core.errors import HardwareError, UsageError
from modelmill.deployment import load as load_deployment
from modelmill.line import Job, expand, lanes_without_gpu, require_machine, require_runtimes


def starter() -> str:
    """The recipe that init writes: it runs as it is, on a model and data that come with the packages."""
    return resources.files("modelmill.cli").joinpath("starter.yaml").read_text("utf-8")


def init(
    path: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path("recipe.yaml"),
) -> None:
    """Start a recipe: one that runs as it is, with a comment at each field."""
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(starter())
    except FileExistsError:
        what = f"{path} is there already, and init never overwrites"
        raise UsageError(what, where=str(path), fix="name another file: modelmill init OTHER.yaml") from None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        what = f"there is no folder {path.parent}"
        raise UsageError(what, where=str(path), fix="make the folder first") from None
    print_text(f"wrote {path}; next: modelmill run {path}")


def check(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    deployment: DeploymentOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not look at the sources, nor at what is installed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Validate a recipe, and that its sources and runtimes are there."""
    located = recipes.load(recipe, overrides or [])
    tasks = expand(Job(located, load_deployment(deployment)))
    if not offline:
        require_runtimes(located.recipe)
        for missing in lanes_without_gpu(located.recipe):
            stderr_progress().fact(missing)
        try:
            require_machine(located.recipe)
        except HardwareError as error:
            stderr_progress().fact(
                f"run would end at once on this machine, orchestrators may have others: {error.what}"
            )
        for task in tasks:
            resolve = task.contract.load_resolve()
            if resolve:
                resolve(task.settings, stderr_progress())
    lanes = [target.name for target in located.recipe.targets]
    if as_json:
        names = [task.id for task in tasks]
        print_json({"recipe": located.recipe.name, "valid": True, "tasks": names, "targets": lanes})
    else:
        print_text(f"{recipe}: valid; {len(tasks)} tasks, targets: {', '.join(lanes)}")


def schema() -> None:
    """Print the recipe's JSON schema."""
    print_json(recipes.schema())


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(init)
    app.command()(check)
    app.command()(schema)
