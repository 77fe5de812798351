"""Moving channels: by a run, by a person, back again; each by one compare-and-swap, a lost race run again.

A rollback pins its channel: until a person lifts the pin, what runs would promote is held back and recorded. A person
who promotes by hand moves a pinned channel, too, and leaves the pin where it is.

What a channel comes to name is renewed in the store first, so that no collector takes it meanwhile.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelmill.core import bundle as bundles
from modelmill.core import promotable, registry
from modelmill.core.errors import InputError, StoreError, UsageError
from modelmill.core.manifest import canonical
from modelmill.core.progress import Progress
from modelmill.core.records import utc_now
from modelmill.core.registry import BundleRecord, Channel, Move, MoveKind, Pin
from modelmill.core.store import Store

# One of the racing writers lands in every round, so that 8 of them with 10 moves each need far fewer.
_ATTEMPTS = 100
_LONGEST_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Moved:
    """What moving a channel did.

    Attributes:
        channel: As it is now.
        moved: False where the channel named the bundle already, or a pin held the bundle back.
        pinned: The pin that held the bundle back.
    """

    channel: Channel
    moved: bool
    pinned: Pin | None = None

    @property
    def previous(self) -> str | None:
        """What the channel named before it came to its present bundle."""
        return self.channel.arrived.previous


def publish(store: Store, model: str, channel: str, bundle: str, run: str | None) -> Moved:
    """Let a channel name the bundle of a run, unless it is pinned.

    Idempotent: where the channel names the bundle already, or the pin has held it back before, nothing is written.

    Raises:
        InputError: The bundle is not registered.
        StoreError: The store is away, the document is damaged or of a newer format, or it never stops changing.
    """
    if registry.find_bundle(store, model, bundle) is None:
        what = f"the bundle {bundle} of {model} is not registered"
        where = registry.channel_name(model, channel)
        raise InputError(what, where=where, fix="promote a bundle that publish has registered")

    def change(before: Channel | None) -> Channel | None:
        if before is not None and before.bundle == bundle:
            return None
        if before is None or before.pin is None:
            return _after(before, model, channel, MoveKind.PUBLISHED, bundle, run=run)
        if before.history[-1].offered == bundle:
            return None
        return _after(before, model, channel, MoveKind.HELD_BACK, before.bundle, run=run, offered=bundle)

    after, changed = _change(store, model, channel, change)
    held = after.pin if after.bundle != bundle else None
    return Moved(after, moved=changed and held is None, pinned=held)


def promote(
    store: Store,
    model: str,
    channel: str,
    record: BundleRecord,
    *,
    by: str,
    why: str | None,
    override: str | None,
    progress: Progress,
) -> Moved:
    """Let a channel name a registered bundle because a person says so.

    Args:
        store: Where the registry lies.
        model: The model's name in the registry.
        channel: The channel.
        record: The bundle.
        by: The person.
        why: Their reason.
        override: The reason for promoting a bundle without a passing verdict; recorded.
        progress: Where to report to.

    Raises:
        UsageError: A lane of the bundle has no passing verdict, and ``override`` is not given.
        InputError: The bundle is damaged.
        StoreError: As `publish`; or the bundle's files are gone.
    """
    directory = _fetched(store, record, progress)
    failing = promotable.failing_lanes(directory, record.bundle)
    if failing and not override:
        what = f"the bundle {record.bundle} has no passing verdict: {', '.join(failing)}"
        fix = "promote one that passed, or say why this one: --override REASON, which is recorded"
        raise UsageError(what, where="BUNDLE", fix=fix)
    if not failing:
        bundles.verify(directory)
    overridden = bool(failing)
    reason = override if overridden else why or override

    def change(before: Channel | None) -> Channel | None:
        if before is not None and before.bundle == record.bundle:
            return None
        kind = MoveKind.PROMOTED
        return _after(before, model, channel, kind, record.bundle, by=by, why=reason, override=overridden)

    after, changed = _change(store, model, channel, change)
    return Moved(after, moved=changed)


def roll_back(
    store: Store, model: str, channel: str, record: BundleRecord, *, by: str, why: str | None, progress: Progress
) -> Moved:
    """Take a channel back to a bundle and pin it there. No verdict is asked for: it was served before.

    Args:
        store: Where the registry lies.
        model: The model's name in the registry.
        channel: The channel.
        record: What it goes back to; chosen before, so that a race or a second call never goes back twice.
        by: The person.
        why: Their reason.
        progress: Where to report to.

    Raises:
        UsageError: The channel never named that bundle.
        StoreError: As `publish`; or the bundle's files are gone.
    """
    _fetched(store, record, progress)

    def change(before: Channel | None) -> Channel | None:
        if before is None or record.bundle not in {move.bundle for move in before.history}:
            what = f"the channel {channel} of {model} never named {record.bundle}"
            fix = f"modelmill channel history {model} {channel} lists what it named; promote leads to others"
            raise UsageError(what, where="--to", fix=fix)
        if before.bundle == record.bundle and before.pin is not None:
            return None
        after = _after(before, model, channel, MoveKind.ROLLED_BACK, record.bundle, by=by, why=why)
        return after.model_copy(update={"pin": Pin(by=by, why=why, at=after.history[-1].at)})

    after, changed = _change(store, model, channel, change)
    return Moved(after, moved=changed)


def unpin(store: Store, model: str, channel: str, *, by: str, why: str | None) -> Moved:
    """Lift a channel's pin; it stays where it is until something is promoted. Without a pin nothing changes.

    Raises:
        UsageError: Nothing was ever promoted to the channel.
        StoreError: As `publish`.
    """

    def change(before: Channel | None) -> Channel | None:
        if before is None:
            what = f"nothing was promoted to the channel {channel} of {model} in {store.uri}"
            raise UsageError(what, where="MODEL CHANNEL", fix="check both names: modelmill channel show lists them")
        if before.pin is None:
            return None
        after = _after(before, model, channel, MoveKind.UNPINNED, before.bundle, by=by, why=why)
        return after.model_copy(update={"pin": None})

    after, changed = _change(store, model, channel, change)
    return Moved(after, moved=changed)


def before_present(channel: Channel) -> str | None:
    """The bundle that a rollback without a target leads to, or None where there is nothing before.

    It is what was served before the present one by way of promotion: a second rollback goes on backwards, and not
    forward to what the first one left.
    """
    served: list[str] = []
    for move in channel.history:
        if move.kind is MoveKind.ROLLED_BACK and move.bundle in served:
            last = len(served) - served[::-1].index(move.bundle)
            del served[last:]
        elif move.bundle != move.previous:
            served.append(move.bundle)
    return served[-2] if len(served) > 1 else None


def _fetched(store: Store, record: BundleRecord, progress: Progress) -> Path:
    """A bundle's verified files, as young in the store as new ones.

    Raises:
        StoreError: They are gone or damaged: a channel must not come to name them.
    """
    if not registry.usable(store, record.artifact):
        problem = store.check_artifact(record.artifact) or "was being removed"
        what = f"the bundle {record.bundle} {problem}"
        fix = "name another one, or run its recipe again: that stores it anew"
        raise StoreError(what, where=store.artifact_uri(record.artifact), fix=fix)
    return store.get_artifact(record.artifact, progress)


def _after(
    before: Channel | None,
    model: str,
    channel: str,
    kind: MoveKind,
    bundle: str,
    *,
    run: str | None = None,
    by: str | None = None,
    why: str | None = None,
    override: bool = False,
    offered: str | None = None,
) -> Channel:
    """A channel with one more entry in its history."""
    history = before.history if before else []
    move = Move(
        number=len(history) + 1,
        kind=kind,
        bundle=bundle,
        previous=before.bundle if before else None,
        at=utc_now(),
        run=run,
        by=by,
        why=why,
        override=override,
        offered=offered,
    )
    pin = before.pin if before else None
    return Channel(model=model, channel=channel, bundle=bundle, pin=pin, history=[*history, move])


def _change(
    store: Store, model: str, channel: str, change: Callable[[Channel | None], Channel | None]
) -> tuple[Channel, bool]:
    """Replace a channel's document by what ``change`` makes of it; None leaves it as it is.

    Returns:
        The channel as it is now, and whether this call changed it.
    """
    name = registry.channel_name(model, channel)
    for attempt in range(_ATTEMPTS):
        found = registry.read_channel(store, model, channel)
        after = change(found[0] if found else None)
        if after is None and found is not None:
            return found[0], False
        if after is not None:
            content = canonical(after.model_dump(mode="json"))
            if store.replace(name, content, found[1].version) if found else store.create(name, content):
                return after, True
        time.sleep(random.uniform(0, min(_LONGEST_PAUSE_SECONDS, 0.005 * 2**attempt)))
    raise registry.keeps_changing(name)
