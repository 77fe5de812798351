"""The registry: bundles by digest, channels that name one each, and each channel's history; written by publish alone.

Documents, below ``registry/<model>/`` of a store::

    bundles/<hex bundle digest>.json     the artifact that holds the bundle; created once
    channels/<channel>.json              the bundle the channel names, with the channel's whole history

Pointer and history are one document, so that one compare-and-swap moves both: there is no moment at which a killed
writer leaves them apart. Moves are numbered; the order of the history never rests on a clock.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import Field, ValidationError

from modelmill.core.contract import Closed
from modelmill.core.errors import InputError, StoreError
from modelmill.core.manifest import canonical
from modelmill.core.records import Digest, utc_now
from modelmill.core.store import Document, Store, hex_of, refuse_newer

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
# One of the racing writers lands in every round, so that 8 of them with 10 moves each need far fewer.
_ATTEMPTS = 100
_LONGEST_PAUSE_SECONDS = 0.5

D = TypeVar("D", bound=Closed)


class BundleRecord(Closed):
    """``bundles/<hex>.json``: a registered bundle."""

    format: int = 1
    model: str
    bundle: Digest
    artifact: Digest = Field(description="the stored artifact that holds it")
    registered_at: str = Field(description="UTC, ISO 8601")
    run: str | None = Field(None, description="the run that registered it")
    signer: str | None = Field(None, description="fingerprint of the key that signed the artifact; none: unsigned")
    earlier: list[Digest] = Field(
        default_factory=list, description="artifacts of the same bundle that another key, or none, had signed"
    )


class Move(Closed):
    """One entry of a channel's history."""

    number: int = Field(ge=1, description="1 is the channel's first; each is one above the former")
    bundle: Digest
    previous: Digest | None = Field(description="what the channel named before")
    at: str = Field(description="UTC, ISO 8601")
    run: str | None = None


class Channel(Closed):
    """``channels/<channel>.json``."""

    format: int = 1
    model: str
    channel: str
    bundle: Digest = Field(description="what the channel names now")
    history: list[Move] = Field(min_length=1, description="oldest first; the last is how it came to `bundle`")


@dataclass(frozen=True)
class Moved:
    """What moving a channel did."""

    channel: Channel
    moved: bool
    """False where the channel named the bundle already."""

    @property
    def previous(self) -> str | None:
        """What the channel named before it came to its present bundle."""
        return self.channel.history[-1].previous


def check_name(name: str, kind: str) -> str:
    """``name`` if a model or channel may be called so.

    Raises:
        InputError: It is not 1 to 63 lower-case letters, digits, dots, dashes and underscores, or starts or ends with
            another sign than a letter or digit.
    """
    if not _NAME.fullmatch(name):
        what = f"{name!r} cannot name a {kind}"
        fix = "use 63 lower-case letters, digits, '.', '_' and '-' at most, with a letter or digit at both ends"
        raise InputError(what, where=f"publish.{kind}", fix=fix)
    return name


def find_bundle(store: Store, model: str, bundle: str) -> BundleRecord | None:
    """The record of a registered bundle, or None.

    Raises:
        StoreError: The store is away, or the record is damaged or of a newer format.
    """
    found = _read(store, _bundle_name(model, bundle), BundleRecord)
    return found[0] if found else None


def register_bundle(
    store: Store, model: str, bundle: str, artifact: str, run: str | None, signer: str | None = None
) -> BundleRecord:
    """Register a bundle once: what was registered before stays, as long as its artifact is whole.

    The same model made again is the same bundle in another artifact, since its evidence was measured anew: the first
    artifact is the one that channels lead to. One with a new signer takes its place, and the former stays stored, for
    servers may read it.

    Raises:
        StoreError: As `find_bundle`.
    """
    name = _bundle_name(model, bundle)
    record = BundleRecord(
        model=model, bundle=bundle, artifact=artifact, registered_at=utc_now(), run=run, signer=signer
    )
    for _ in range(_ATTEMPTS):
        if store.create(name, canonical(record.model_dump(mode="json"))):
            return record
        found = _read(store, name, BundleRecord)
        if found is None:
            continue
        registered, document = found
        newly_signed = signer is not None and registered.signer != signer
        if registered.artifact == artifact or (not newly_signed and _usable(store, registered.artifact)):
            return registered
        earlier = [*registered.earlier, registered.artifact] if newly_signed else registered.earlier
        after = record.model_copy(update={"earlier": earlier})
        if store.replace(name, canonical(after.model_dump(mode="json")), document.version):
            return after
    raise _keeps_changing(name)


def show_channel(store: Store, model: str, channel: str) -> Channel | None:
    """What a channel names and how it came to it, or None where nothing was ever promoted to it.

    Raises:
        StoreError: The store is away, or the document is damaged or of a newer format.
    """
    found = _read(store, _channel_name(model, channel), Channel)
    return found[0] if found else None


def move_channel(store: Store, model: str, channel: str, bundle: str, run: str | None) -> Moved:
    """Let a channel name ``bundle``, by compare-and-swap; a lost race is run again on what the winner wrote.

    Idempotent: where the channel names the bundle already, nothing is written.

    Raises:
        InputError: The bundle is not registered.
        StoreError: The store is away, the document is damaged or of a newer format, or it never stops changing.
    """
    name = _channel_name(model, channel)
    if find_bundle(store, model, bundle) is None:
        what = f"the bundle {bundle} of {model} is not registered"
        raise InputError(what, where=name, fix="promote a bundle that publish has registered")
    for attempt in range(_ATTEMPTS):
        found = _read(store, name, Channel)
        if found is not None and found[0].bundle == bundle:
            return Moved(found[0], moved=False)
        history = found[0].history if found else []
        previous = found[0].bundle if found else None
        move = Move(number=len(history) + 1, bundle=bundle, previous=previous, at=utc_now(), run=run)
        after = Channel(model=model, channel=channel, bundle=bundle, history=[*history, move])
        content = canonical(after.model_dump(mode="json"))
        if store.replace(name, content, found[1].version) if found else store.create(name, content):
            return Moved(after, moved=True)
        time.sleep(random.uniform(0, min(_LONGEST_PAUSE_SECONDS, 0.005 * 2**attempt)))
    raise _keeps_changing(name)


def models(store: Store) -> list[str]:
    """The names of all models with a registered bundle, sorted."""
    return sorted({name.split("/")[1] for name, _ in store.list_documents("registry/")})


def channels(store: Store, model: str) -> list[str]:
    """The names of a model's channels, sorted."""
    prefix = f"registry/{check_name(model, 'model')}/channels/"
    return [name.removeprefix(prefix).removesuffix(".json") for name, _ in store.list_documents(prefix)]


def bundles(store: Store, model: str) -> Iterator[BundleRecord]:
    """A model's registered bundles, by digest."""
    prefix = f"registry/{check_name(model, 'model')}/bundles/"
    for name, _ in store.list_documents(prefix):
        found = _read(store, name, BundleRecord)
        if found is not None:
            yield found[0]


def artifacts_in_use(store: Store, last: int | None = None) -> set[str]:
    """The artifacts of all bundles that a channel names, or named in the ``last`` entries of its history (None: ever).

    A bundle whose record is gone holds none.
    """
    held = set()
    for model in models(store):
        named: set[str] = set()
        for channel in channels(store, model):
            shown = show_channel(store, model, channel)
            if shown is not None:
                kept = shown.history if last is None else shown.history[-max(1, last) :]
                named |= {shown.bundle, *(move.bundle for move in kept)}
        for bundle in named:
            record = find_bundle(store, model, bundle)
            if record is not None:
                held |= {record.artifact, *record.earlier}
    return held


def _bundle_name(model: str, bundle: str) -> str:
    return f"registry/{check_name(model, 'model')}/bundles/{hex_of(bundle)}.json"


def _channel_name(model: str, channel: str) -> str:
    return f"registry/{check_name(model, 'model')}/channels/{check_name(channel, 'channel')}.json"


def _usable(store: Store, artifact: str) -> bool:
    return store.check_artifact(artifact) is None and store.renew_artifact(artifact)


def _read(store: Store, name: str, kind: type[D]) -> tuple[D, Document] | None:
    document = store.read(name)
    if document is None:
        return None
    try:
        content = json.loads(document.content)
        refuse_newer(content, "registry document", name)
        parsed = kind.model_validate(content)
    except (ValidationError, ValueError):
        what = "a document of the registry cannot be read: it was damaged, or modelmill did not write it"
        raise StoreError(what, where=f"{store.uri}/{name}", fix="restore it from a backup of the store") from None
    if isinstance(parsed, Channel) and not _linear(parsed):
        what = "a channel's history does not lead to the bundle that the channel names"
        raise StoreError(what, where=f"{store.uri}/{name}", fix="restore it from a backup of the store")
    return parsed, document


def _linear(channel: Channel) -> bool:
    """Whether every move starts where the former ended, and the last ends at the channel's bundle."""
    at: str | None = None
    for number, move in enumerate(channel.history, 1):
        if move.number != number or move.previous != at:
            return False
        at = move.bundle
    return at == channel.bundle


def _keeps_changing(name: str) -> StoreError:
    what = f"{name} kept changing through {_ATTEMPTS} attempts"
    return StoreError(what, where=name, fix="run again")
