"""Commands on channels: channel show, history, promote, rollback, unpin."""

from __future__ import annotations

import getpass
import os
from typing import Annotated

import typer

from modelmill.cli.options import DeploymentOption, JsonOption, StoreOption, store_and_deployment
from modelmill.cli.output import print_json, print_table, print_text, short
from modelmill.cli.progress import stderr_progress
from modelmill.core import channels, promotable, registry
from modelmill.core.channels import Moved
from modelmill.core.errors import GitError, StoreError, UsageError
from modelmill.core.registry import BundleRecord, Channel
from modelmill.core.store import Store
from modelmill.deployment import Deployment
from modelmill.steps.publish import gitops
from modelmill.steps.publish.gitops import Committed

channel_app = typer.Typer(
    help="What the registry's channels name, and moving them by hand.", no_args_is_help=True, rich_markup_mode=None
)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name in the registry.")]
ChannelArgument = Annotated[str, typer.Argument(metavar="CHANNEL", help="The channel: staging, production.")]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Who does it.  [default: the user of this machine]")
]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.")]


def _channel(store: Store, model: str, channel: str) -> Channel:
    found = registry.show_channel(store, model, channel)
    if found is None:
        known = ", ".join(f"{name} {at}" for name in registry.models(store) for at in registry.channels(store, name))
        what = f"nothing was promoted to the channel {channel} of {model} in {store.uri}"
        raise UsageError(what, where="MODEL CHANNEL", fix=f"the registry has: {known or 'no channel yet'}")
    return found


def _person(by: str | None) -> str:
    if by:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number that has no name.
        return f"user {os.getuid()}"


def _lost(store: Store, found: Channel, record: BundleRecord | None) -> StoreError | None:
    """The error for a channel whose bundle cannot be fetched, or None."""
    if record is not None and store.read_manifest(record.artifact) is not None:
        return None
    gone = "is not in the registry any more" if record is None else "is gone from the store"
    what = f"the channel {found.channel} of {found.model} names the bundle {found.bundle}, which {gone}"
    back = channels.before_present(found)
    command = f"modelmill channel rollback {found.model} {found.channel}"
    fix = f"{command} leads to the one before; or run the recipe again" if back else "run the recipe again"
    return StoreError(what, where=store.uri, fix=fix)


@channel_app.command("show")
def show(
    model: ModelArgument, channel: ChannelArgument, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Show the bundle that a channel names and where it lies; exit code 5 where it is gone."""
    opened, _ = store_and_deployment(store)
    found = _channel(opened, model, channel)
    record = registry.find_bundle(opened, model, found.bundle)
    lost = _lost(opened, found, record)
    uri = opened.artifact_uri(record.artifact) if record and not lost else None
    came, pin = found.arrived, found.pin
    if as_json:
        shown = {"model": model, "channel": channel, "digest": found.bundle, "bundle": uri, "since": came.at}
        move = {"kind": came.kind.value, "run": came.run, "by": came.by, "why": came.why, "previous": came.previous}
        pinned = pin.model_dump(mode="json") if pin else None
        print_json({**shown, **move, "pinned": pinned, "moves": len(found.history)})
    else:
        print_text(f"{model} {channel}: {found.bundle}")
        print_text(f"bundle: {uri or 'gone'}")
        print_text(f"since:  {came.at}, {came.kind.value} by {came.by or f'run {came.run}'}{_because(came.why)}")
        if pin:
            print_text(f"pinned: by {pin.by}, {pin.at}{_because(pin.why)}")
    if lost:
        raise lost


@channel_app.command("history")
def history(
    model: ModelArgument, channel: ChannelArgument, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Show every move of a channel, the oldest first."""
    opened, _ = store_and_deployment(store)
    found = _channel(opened, model, channel)
    if as_json:
        print_json([move.model_dump(mode="json") for move in found.history])
        return
    print_table(
        f"{model} {channel}",
        ["move", "what", "bundle", "before", "at", "by", "why"],
        [
            (
                move.number,
                f"{move.kind.value} {short(move.offered)}" if move.offered else move.kind.value,
                short(move.bundle),
                short(move.previous),
                move.at,
                move.by or (f"run {move.run}" if move.run else None),
                f"{move.why} (no passing verdict)" if move.override else move.why,
            )
            for move in found.history
        ],
    )


@channel_app.command("promote")
def promote(
    model: ModelArgument,
    channel: ChannelArgument,
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="A registered bundle: its digest, its first digits, or its URI.")
    ],
    override: Annotated[
        str | None,
        typer.Option("--override", metavar="REASON", help="Promote it without a passing verdict; recorded."),
    ] = None,
    reason: ReasonOption = None,
    by: ByOption = None,
    store: StoreOption = None,
    deployment: DeploymentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a channel name a registered bundle that has passed the gate; the deployment's Git repository follows."""
    opened, deployed = store_and_deployment(store, deployment)
    progress = stderr_progress()
    record = promotable.find_named(opened, model, bundle)
    done = channels.promote(
        opened, model, channel, record, by=_person(by), why=reason, override=override, progress=progress
    )
    _print_moved(done, as_json, _in_git(done, opened, deployed, "promote"))


@channel_app.command("rollback")
def rollback(
    model: ModelArgument,
    channel: ChannelArgument,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="DIGEST", help="What it goes back to.  [default: what it named before]"),
    ] = None,
    reason: ReasonOption = None,
    by: ByOption = None,
    store: StoreOption = None,
    deployment: DeploymentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a channel back and pin it there until channel unpin; the deployment's Git repository follows."""
    opened, deployed = store_and_deployment(store, deployment)
    found = _channel(opened, model, channel)
    back = to or channels.before_present(found)
    if back is None:
        what = f"the channel {channel} of {model} named nothing before {found.bundle}"
        raise UsageError(what, where="CHANNEL", fix=f"modelmill channel history {model} {channel} shows its moves")
    record = promotable.find_named(opened, model, back)
    done = channels.roll_back(opened, model, channel, record, by=_person(by), why=reason, progress=stderr_progress())
    _print_moved(done, as_json, _in_git(done, opened, deployed, "rollback"))


@channel_app.command("unpin")
def unpin(
    model: ModelArgument,
    channel: ChannelArgument,
    reason: ReasonOption = None,
    by: ByOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lift a channel's pin: the next run that passes moves it again."""
    opened, _ = store_and_deployment(store)
    _channel(opened, model, channel)
    done = channels.unpin(opened, model, channel, by=_person(by), why=reason)
    _print_moved(done, as_json, None)


def _in_git(done: Moved, store: Store, deployed: Deployment, verb: str) -> Committed | None:
    """Commit what a channel names now, where the deployment has a Git repository.

    Raises:
        GitError: It is away or refuses. The registry has moved; a rollback without its target, given once more, would
            go back once more, so that the fix names the target.
    """
    if deployed.git is None:
        return None
    found = done.channel
    try:
        return gitops.release(store, deployed.git, found.model, found.channel, stderr_progress())
    except GitError as error:
        option = "--to " if verb == "rollback" else ""
        again = f"modelmill channel {verb} {found.model} {found.channel} {option}{found.bundle}"
        what = f"the registry's channel names {found.bundle} now, and Git does not: {error.what}"
        fix = f"{error.fix}. Then, with the same --deployment: {again}"
        raise GitError(what, where=error.where, fix=fix) from None


def _print_moved(done: Moved, as_json: bool, git: Committed | None) -> None:
    found = done.channel
    if as_json:
        last = found.history[-1].model_dump(mode="json")
        pinned = found.pin.model_dump(mode="json") if found.pin else None
        print_json(
            {
                "changed": done.moved,
                "digest": found.bundle,
                "pinned": pinned,
                "move": last,
                "git": git.facts() if git else None,
            }
        )
        return
    said = found.history[-1].kind.value if done.moved else "nothing to do"
    print_text(f"{found.model} {found.channel}: {said}, it names {found.bundle}")
    if git:
        print_text(f"git: {git.words}")
    if found.pin:
        lift = f"modelmill channel unpin {found.model} {found.channel}"
        print_text(f"pinned by {found.pin.by}{_because(found.pin.why)}: no run moves it until {lift}")


def _because(why: str | None) -> str:
    return f" ({why})" if why else ""


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(channel_app, name="channel")
