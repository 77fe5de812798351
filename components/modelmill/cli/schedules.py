"""Commands on recurring runs: schedule create, schedule show, schedule delete."""

from __future__ import annotations

import json
import re
from typing import Annotated

import typer

from modelmill.cli.options import DeploymentOption, JsonOption, RecipeArgument, SetOption, deployment_of_pods
from modelmill.cli.output import print_json, print_table, print_text
from modelmill.core.contract import Zone
from modelmill.core.errors import UsageError
from modelmill.line import Job
from modelmill.runners import cron as crons
from modelmill.runners import kubeflow
from modelmill.runners.containers import describe
from modelmill.runners.kubeflow_client import connect
from modelmill.runners.parameters import for_cluster
from modelmill.runners.schedules import Schedule, Schedules, Wanted, chosen

schedule_app = typer.Typer(
    help="Recurring runs on Kubeflow Pipelines. A token is read from the file that KF_PIPELINES_SA_TOKEN_PATH names.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

HostOption = Annotated[
    str | None,
    typer.Option(
        "--host", metavar="URL", help="The address of Kubeflow Pipelines.  [default: what KF_PIPELINES_ENDPOINT says]"
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--kfp-namespace", metavar="NS", help="Your profile's namespace, on a server of several users."),
]


@schedule_app.command("create")
def create(
    recipe: RecipeArgument,
    cron: Annotated[
        str, typer.Option("--cron", metavar="'M H D M W'", help="When: five fields, or a word such as @daily.")
    ],
    host: HostOption = None,
    deployment: DeploymentOption = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="URI", help="s3://BUCKET/PREFIX.  [default: the deployment's]")
    ] = None,
    overrides: SetOption = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The recurring run's.  [default: the recipe's]")
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", metavar="NAME", help="What its runs are grouped by.  [default: the recipe's]"),
    ] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Make it without starting runs yet.")] = False,
    catch_up: Annotated[
        bool, typer.Option("--catchup/--no-catchup", help="Make up for starts that were missed.")
    ] = False,
    max_concurrency: Annotated[
        int, typer.Option("--max-concurrency", min=1, max=10, metavar="N", help="Runs at a time.")
    ] = 1,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a recurring run of a recipe, or make the one of its name as it is wanted.

    Fields given with --set are the parameters of its runs; those that no form can hold are compiled in.
    """
    schedule = crons.parse(cron)
    located, parameters = chosen(recipe, overrides or [])
    deployed = deployment_of_pods(deployment, store)
    for_cluster(located)
    called = located.recipe.name
    described = describe(Job(located, deployed))
    wanted = Wanted(
        name=_checked(name or called, "--name"),
        pipeline=kubeflow.pipeline_name(called),
        summary=described.summary,
        package=kubeflow.compiled(described),
        cron=schedule,
        experiment=_checked(experiment or called, "--experiment"),
        service_account=deployed.service_accounts[Zone.UNTRUSTED],
        parameters=parameters,
        enabled=not disabled,
        catch_up=catch_up,
        max_concurrency=max_concurrency,
    )
    made, outcome = Schedules(connect(host, namespace)).create(wanted)
    if as_json:
        print_json({"outcome": outcome.value, **_document(made)})
        return
    print_text(f"{made.name}: {outcome.value}")
    print_text(f"at:         {schedule.text} (for Kubeflow, which counts seconds: {schedule.kubeflow})")
    _print(made)


@schedule_app.command("show")
def show(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them, with its latest runs.")] = None,
    host: HostOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the recurring runs of a server, or one with its latest runs.

    The next time is worked out here from the cron expression in UTC; the server may be set to another time zone.
    """
    schedules = Schedules(connect(host, namespace))
    if name is None:
        found = schedules.all()
        if as_json:
            print_json([_document(item) for item in found])
            return
        print_table(
            "recurring runs",
            ["name", "cron", "enabled", "next (UTC)", "by modelmill", "id"],
            [(item.name, item.cron, _yes(item.enabled), item.next_at, _yes(item.made_here), item.id) for item in found],
        )
        return
    found = [schedules.with_runs(item) for item in schedules.named(name)]
    if as_json:
        print_json([_document(item) for item in found])
        return
    for item in found:
        print_text(f"{item.name}: {'enabled' if item.enabled else 'disabled'}")
        print_text(f"at:         {item.cron}")
        _print(item)
        rows = [(run.id, run.state, run.started_at, run.finished_at) for run in item.runs]
        if rows:
            print_table("latest runs", ["run", "state", "started", "finished"], rows)
        else:
            print_text("runs:       none yet")


@schedule_app.command("delete")
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The recurring run's name.")],
    host: HostOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a recurring run that modelmill made. Its past runs and its pipeline stay."""
    gone = Schedules(connect(host, namespace)).delete(name)
    if as_json:
        print_json([_document(item) for item in gone])
        return
    for item in gone:
        print_text(f"deleted: {item.name} ({item.cron}), recurring run {item.id}")


def _checked(name: str, option: str) -> str:
    if not re.fullmatch(r"\S(?:.{0,126}\S)?", name):
        what = f"{name!r} is no name"
        raise UsageError(what, where=option, fix="give 1 to 128 characters, in one line, none at its ends a space")
    return name


def _document(item: Schedule) -> dict[str, object]:
    return item.model_dump(mode="json")


def _print(item: Schedule) -> None:
    print_text(f"next:       {item.next_at or 'none'}{' (UTC)' if item.next_at else ''}")
    print_text(f"parameters: {json.dumps(item.parameters) if item.parameters else 'the defaults of the pipeline'}")
    print_text(f"missed:     {'made up for' if item.catch_up else 'left out'}; at a time: {item.max_concurrency}")
    print_text(f"pods:       service account {item.service_account}")
    print_text(f"version:    {item.version_id} of pipeline {item.pipeline_id}")
    print_text(f"id:         {item.id}")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(schedule_app, name="schedule")
