"""Commands on channels: channel show, channel history."""

from __future__ import annotations

from typing import Annotated

import typer

from modelmill.cli.options import JsonOption, StoreOption, store_and_deployment
from modelmill.cli.output import print_json, print_table, print_text, short
from modelmill.core import registry
from modelmill.core.errors import UsageError
from modelmill.core.registry import Channel
from modelmill.core.store import Store

channel_app = typer.Typer(help="What the registry's channels name.", no_args_is_help=True, rich_markup_mode=None)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name in the registry.")]
ChannelArgument = Annotated[str, typer.Argument(metavar="CHANNEL", help="The channel: staging, production.")]


def _channel(store: Store, model: str, channel: str) -> Channel:
    found = registry.show_channel(store, model, channel)
    if found is None:
        known = ", ".join(f"{name} {at}" for name in registry.models(store) for at in registry.channels(store, name))
        what = f"nothing was promoted to the channel {channel} of {model} in {store.uri}"
        raise UsageError(what, where="MODEL CHANNEL", fix=f"the registry has: {known or 'no channel yet'}")
    return found


@channel_app.command("show")
def show(
    model: ModelArgument, channel: ChannelArgument, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Show the bundle that a channel names and where it lies."""
    opened, _ = store_and_deployment(store)
    found = _channel(opened, model, channel)
    record = registry.find_bundle(opened, model, found.bundle)
    uri = opened.artifact_uri(record.artifact) if record else None
    last = found.history[-1]
    if as_json:
        shown = {"model": model, "channel": channel, "digest": found.bundle, "bundle": uri, "since": last.at}
        print_json({**shown, "run": last.run, "previous": last.previous, "moves": len(found.history)})
        return
    print_text(f"{model} {channel}: {found.bundle}")
    print_text(f"bundle: {uri or 'gone from the registry'}")
    print_text(f"since:  {last.at}, by run {last.run}")


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
        ["move", "bundle", "before", "at", "run"],
        [(move.number, short(move.bundle), short(move.previous), move.at, move.run) for move in found.history],
    )


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(channel_app, name="channel")
