"""Moving channels: by a run, by a person, back again; each by one compare-and-swap, a lost race run again.

A rollback pins its channel: until a person lifts the pin, what runs would promote is held back and recorded. A person
who promotes by hand moves a pinned channel, too, and leaves the pin where it is.

What a channel comes to name is renewed in the store first, so that no collector takes it meanwhile.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelmill.core import bundle as bundles
from modelmill.core import channel_document, promotable, registry
from modelmill.core.errors import InputError, StoreError, UsageError
from modelmill.core.progress import Progress
from modelmill.core.registry_documents import BundleRecord, Channel, MoveKind, Pin
from modelmill.core.store import Store


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


def publish(
    store: Store,
    model: str,
    channel: str,
    bundle: str,
    run: str | None,
    held_against: Mapping[str, str | None] | None = None,
    artifact: str | None = None,
) -> Moved:
    """Let a channel name the bundle of a run, unless it is pinned.

    Idempotent: where the channel names the bundle already, or the pin has held it back before, nothing is written. A
    bundle that it names already and another key has signed since is a move too, which a pin keeps off.

    Args:
        store: Where the registry lies.
        model: The model's name in the registry.
        channel: The channel.
        bundle: The bundle's digest.
        run: The run.
        held_against: Target → the bundle that the channel named when the lane was judged (None: none yet), for lanes
            that were held against a champion. The same write that moves the channel makes sure that it still does.
        artifact: The registered artifact that holds it; None: the one in its record, or what the channel leads to.

    Raises:
        InputError: The bundle is not registered.
        ChampionError: The channel names another bundle by now than a lane was held against.
        StoreError: The store is away, the document is damaged or of a newer format, or it never stops changing.
    """
    record = registry.find_bundle(store, model, bundle)
    if record is None:
        what = f"the bundle {bundle} of {model} is not registered"
        where = registry.channel_name(model, channel)
        raise InputError(what, where=where, fix="promote a bundle that publish has registered")

    holder = artifact or record.artifact

    def change(before: Channel | None) -> Channel | None:
        if before is not None and before.bundle == bundle:
            if before.pin or not artifact or not _signed_anew(record, before, artifact):
                return None
            return channel_document.moved_on(
                before, model, channel, MoveKind.SIGNED_ANEW, bundle, artifact=artifact, run=run
            )
        if before is None or before.pin is None:
            promotable.require_champion(before, bundle, held_against or {})
            return channel_document.moved_on(
                before, model, channel, MoveKind.PUBLISHED, bundle, artifact=holder, run=run
            )
        if before.history[-1].offered == bundle:
            return None
        return channel_document.moved_on(
            before, model, channel, MoveKind.HELD_BACK, before.bundle, run=run, offered=bundle
        )

    after, changed = channel_document.change(store, model, channel, change)
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
        kind = MoveKind.PROMOTED
        if before is not None and before.bundle == record.bundle:
            if not _signed_anew(record, before, record.artifact):
                return None
            kind = MoveKind.SIGNED_ANEW
        told = functools.partial(
            channel_document.moved_on, artifact=record.artifact, by=by, why=reason, override=overridden
        )
        return told(before, model, channel, kind, record.bundle)

    after, changed = channel_document.change(store, model, channel, change)
    return Moved(after, moved=changed)


def roll_back(
    store: Store,
    model: str,
    channel: str,
    record: BundleRecord,
    *,
    by: str,
    why: str | None,
    progress: Progress,
    leaving: str | None = None,
) -> Moved:
    """Take a channel back to a bundle and pin it there. No verdict is asked for: it was served before.

    It leads to the artifact that it led to then, whoever has signed the bundle since.

    Args:
        store: Where the registry lies.
        model: The model's name in the registry.
        channel: The channel.
        record: What it goes back to; chosen before, so that a race or a second call never goes back twice.
        by: The person.
        why: Their reason.
        progress: Where to report to.
        leaving: The bundle that the channel must still name; where it names another by now, nothing changes.

    Raises:
        UsageError: The channel never named that bundle.
        StoreError: As `publish`; or the bundle's files are gone.
    """
    found = registry.show_channel(store, model, channel)
    led = record.led_to(found.artifact_of(record.bundle)) if found else record
    _fetched(store, led, progress)

    def change(before: Channel | None) -> Channel | None:
        if before is None or record.bundle not in {move.bundle for move in before.history}:
            what = f"the channel {channel} of {model} never named {record.bundle}"
            fix = f"modelmill channel history {model} {channel} lists what it named; promote leads to others"
            raise UsageError(what, where="--to", fix=fix)
        left_already = leaving is not None and before.bundle != leaving
        if left_already or (before.bundle == record.bundle and before.pin is not None):
            return None
        kind = MoveKind.ROLLED_BACK
        after = channel_document.moved_on(
            before, model, channel, kind, record.bundle, artifact=led.artifact, by=by, why=why
        )
        return after.model_copy(update={"pin": Pin(by=by, why=why, at=after.history[-1].at)})

    after, changed = channel_document.change(store, model, channel, change)
    return Moved(after, moved=changed)


def unpin(store: Store, model: str, channel: str, *, by: str, why: str | None) -> Moved:
    """Lift a channel's pin; it stays where it is until something is promoted. Without a pin nothing changes.

    Raises:
        UsageError: Nothing was ever promoted to the channel.
        StoreError: As `publish`.
    """

    def change(before: Channel | None) -> Channel | None:
        if before is None:
            raise _never_promoted(store, model, channel)
        if before.pin is None:
            return None
        after = channel_document.moved_on(before, model, channel, MoveKind.UNPINNED, before.bundle, by=by, why=why)
        return after.model_copy(update={"pin": None})

    after, changed = channel_document.change(store, model, channel, change)
    return Moved(after, moved=changed)


def refer(store: Store, model: str, channel: str, record: BundleRecord, *, by: str, why: str | None) -> Moved:
    """Make a bundle the reference that every candidate for the channel is held against; the channel stays where it is.

    No run moves it, so that small losses, each within what a gate allows, cannot add up behind it.

    Args:
        store: Where the registry lies.
        model: The model's name in the registry.
        channel: The channel.
        record: The bundle; collectors leave it alone for as long as it is the reference.
        by: The person.
        why: Their reason.

    Raises:
        UsageError: Nothing was ever promoted to the channel.
        StoreError: As `publish`; or the bundle's files are gone.
    """
    _require_usable(store, record)

    def change(before: Channel | None) -> Channel | None:
        if before is None:
            raise _never_promoted(store, model, channel)
        if before.reference == record.bundle:
            return None
        kind = MoveKind.REFERENCED
        after = channel_document.moved_on(
            before, model, channel, kind, before.bundle, by=by, why=why, reference=record.bundle
        )
        return after.model_copy(update={"reference": record.bundle})

    after, changed = channel_document.change(store, model, channel, change)
    return Moved(after, moved=changed)


def _signed_anew(record: BundleRecord, channel: Channel, artifact: str) -> bool:
    """Whether another key signed this artifact of the channel's bundle than the one that the channel leads to."""
    led = record.led_to(channel.artifact_of(record.bundle))
    signer = record.signers.get(artifact)
    return signer is not None and signer != led.signer


def _never_promoted(store: Store, model: str, channel: str) -> UsageError:
    what = f"nothing was promoted to the channel {channel} of {model} in {store.uri}"
    return UsageError(what, where="MODEL CHANNEL", fix="check both names: modelmill channel show lists them")


def before_present(channel: Channel) -> str | None:
    """The bundle that a rollback without a target leads to, or None where there is nothing before.

    It is what was served before the present one by way of promotion: a second rollback goes on backwards, and not
    forward to what the first one left.
    """
    served: list[str] = []
    when_promoted: dict[str, list[str]] = {}
    for move in channel.history:
        if move.kind is MoveKind.ROLLED_BACK and move.bundle in when_promoted:
            served = when_promoted[move.bundle]
        elif move.bundle != move.previous:
            served = when_promoted[move.bundle] = [*served, move.bundle]
    return served[-2] if len(served) > 1 else None


def _fetched(store: Store, record: BundleRecord, progress: Progress) -> Path:
    """A bundle's verified files, as young in the store as new ones.

    Raises:
        StoreError: They are gone or damaged: a channel must not come to name them.
    """
    _require_usable(store, record)
    return store.get_artifact(record.artifact, progress)


def _require_usable(store: Store, record: BundleRecord) -> None:
    """Check that a bundle's files are whole, and make them as young as new ones.

    Raises:
        StoreError: They are gone or damaged.
    """
    if not registry.usable(store, record.artifact):
        problem = store.check_artifact(record.artifact) or "was being removed"
        what = f"the bundle {record.bundle} {problem}"
        fix = (
            f"name another one, of those that modelmill channel history {record.model} CHANNEL lists (rollback --to "
            "DIGEST), or run its recipe again: that stores it anew"
        )
        raise StoreError(what, where=store.artifact_uri(record.artifact), fix=fix)
