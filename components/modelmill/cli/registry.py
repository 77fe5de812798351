"""Commands on channels: channel show, history, promote, rollback, unpin, reference."""

from __future__ import annotations

import getpass
import os
from collections.abc import Sequence
from typing import Annotated

import typer

from modelmill.cli.options import DeploymentOption, JsonOption, StoreOption, one_line, store_and_deployment
from modelmill.cli.output import print_json, print_table, print_text, short
from modelmill.cli.progress import stderr_progress
from modelmill.core import channels, promotable, registry
from modelmill.core.channels import Moved
from modelmill.core.errors import StoreError, UsageError
from modelmill.core.registry_documents import BundleRecord, Channel
from modelmill.core.store import Store
from modelmill.deployment import Deployment
from modelmill.steps.publish import gitops, mirrors
from modelmill.steps.publish.gitops import Committed
from modelmill.steps.publish.mirrors import Mirrored

channel_app = typer.Typer(
    help="What the registry's channels name, and moving them by hand.", no_args_is_help=True, rich_markup_mode=None
)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name in the registry.")]
ChannelArgument = Annotated[str, typer.Argument(metavar="CHANNEL", help="The channel: staging, production.")]
ByOption = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who does it.  [default: the user of this machine]", callback=one_line),
]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.", callback=one_line)
]


def _channel(store: Store, model: str, channel: str) -> Channel:
    found = registry.show_channel(store, model, channel)
    if found is None:
        known = ", ".join(f"{name} {at}" for name in registry.models(store) for at in registry.channels(store, name))
        what = f"nothing was promoted to the channel {channel} of {model} in {store.uri}"
        raise UsageError(what, where="MODEL CHANNEL", fix=f"the registry has: {known or 'no channel yet'}")
    return found


def person(by: str | None) -> str:
    """Who does something: as told, or this machine's user."""
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
    record = registry.served(opened, found)
    lost = _lost(opened, found, record)
    uri = opened.artifact_uri(record.artifact) if record and not lost else None
    came, pin = found.arrived, found.pin
    if as_json:
        shown = {"model": model, "channel": channel, "digest": found.bundle, "bundle": uri, "since": came.at}
        move = {"kind": came.kind.value, "run": came.run, "by": came.by, "why": came.why, "previous": came.previous}
        pinned = pin.model_dump(mode="json") if pin else None
        print_json({**shown, **move, "pinned": pinned, "reference": found.reference, "moves": len(found.history)})
    else:
        print_text(f"{model} {channel}: {found.bundle}")
        print_text(f"bundle: {uri or 'gone'}")
        print_text(f"since:  {came.at}, {came.kind.value} by {came.by or f'run {came.run}'}{_because(came.why)}")
        if pin:
            print_text(f"pinned: by {pin.by}, {pin.at}{_because(pin.why)}")
        if found.reference:
            print_text(f"reference: {found.reference}")
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
                f"{move.kind.value} {short(named)}" if (named := move.offered or move.reference) else move.kind.value,
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
        typer.Option(
            "--override",
            metavar="REASON",
            help="Promote it without a passing verdict; recorded.",
            callback=one_line,
        ),
    ] = None,
    reason: ReasonOption = None,
    by: ByOption = None,
    store: StoreOption = None,
    deployment: DeploymentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a channel name a registered bundle that has passed the gate; the deployment's Git and mirrors follow."""
    opened, deployed = store_and_deployment(store, deployment)
    progress = stderr_progress()
    record = promotable.find_named(opened, model, bundle)
    _require_git(deployed, model, channel)
    done = channels.promote(
        opened, model, channel, record, by=person(by), why=reason, override=override, progress=progress
    )
    _print_moved(done, as_json, _in_git(done, opened, deployed), _in_mirrors(done, opened, deployed))


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
    """Take a channel back and pin it there until channel unpin; the deployment's Git and mirrors follow."""
    opened, deployed = store_and_deployment(store, deployment)
    found = _channel(opened, model, channel)
    back = to or channels.before_present(found)
    if back is None:
        what = f"the channel {channel} of {model} named nothing before {found.bundle}"
        raise UsageError(what, where="CHANNEL", fix=f"modelmill channel history {model} {channel} shows its moves")
    record = promotable.find_named(opened, model, back)
    _require_git(deployed, model, channel)
    done = channels.roll_back(opened, model, channel, record, by=person(by), why=reason, progress=stderr_progress())
    _print_moved(done, as_json, _in_git(done, opened, deployed, back=True), _in_mirrors(done, opened, deployed))


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
    done = channels.unpin(opened, model, channel, by=person(by), why=reason)
    _print_moved(done, as_json, None)


@channel_app.command("reference")
def reference(
    model: ModelArgument,
    channel: ChannelArgument,
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="A registered bundle: its digest, its first digits, or its URI.")
    ],
    reason: ReasonOption = None,
    by: ByOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pin the bundle that gate.max_drop_vs_reference_points holds candidates against; no run moves it."""
    opened, _ = store_and_deployment(store)
    _channel(opened, model, channel)
    record = promotable.find_named(opened, model, bundle)
    done = channels.refer(opened, model, channel, record, by=person(by), why=reason)
    _print_moved(done, as_json, None)


def _require_git(deployed: Deployment, model: str, channel: str) -> None:
    """Check the deployment's Git repository, where it has one, before a channel moves."""
    if deployed.git is not None:
        gitops.require_ready(deployed.git, model, channel)


def _in_git(done: Moved, store: Store, deployed: Deployment, *, back: bool = False) -> Committed | None:
    """Commit what a channel names now, where the deployment has a Git repository."""
    return gitops.follow(store, deployed.git, done, stderr_progress(), back=back) if deployed.git else None


def _in_mirrors(done: Moved, store: Store, deployed: Deployment) -> list[Mirrored]:
    """Tell the deployment's mirrors what a channel names now; one that is behind is said, and stops nothing."""
    return mirrors.follow(store, deployed.mirrors, done.channel.model, stderr_progress()) if deployed.mirrors else []


def _print_moved(done: Moved, as_json: bool, git: Committed | None, told: Sequence[Mirrored] = ()) -> None:
    found = done.channel
    if as_json:
        last = found.history[-1].model_dump(mode="json")
        pinned = found.pin.model_dump(mode="json") if found.pin else None
        print_json(
            {
                "changed": done.moved,
                "digest": found.bundle,
                "pinned": pinned,
                "reference": found.reference,
                "move": last,
                "git": git.facts() if git else None,
                "mirrors": [mirrored.facts() for mirrored in told],
            }
        )
        return
    said = found.history[-1].kind.value if done.moved else "nothing to do"
    print_text(f"{found.model} {found.channel}: {said}, it names {found.bundle}")
    if found.reference:
        print_text(f"candidates are held against the reference {found.reference}")
    if git:
        print_text(f"git: {git.words}")
    for mirrored in told:
        print_text(f"{mirrored.mirror} is {mirrored.state.value}: {mirrored.words}")
    if found.pin:
        lift = f"modelmill channel unpin {found.model} {found.channel}"
        print_text(f"pinned by {found.pin.by}{_because(found.pin.why)}: no run moves it until {lift}")


def _because(why: str | None) -> str:
    return f" ({why})" if why else ""


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(channel_app, name="channel")
