"""The registry: bundles by digest, channels that name one each, and each channel's history.

Publish alone writes it, and a person by hand; `modelmill.core.channels` moves channels.

Documents, below ``registry/<model>/`` of a store::

    bundles/<hex bundle digest>.json     the artifacts that hold the bundle, one for each who signed it
    channels/<channel>.json              the bundle the channel names, with the channel's whole history

Pointer and history are one document, so that one compare-and-swap moves both: there is no moment at which a killed
writer leaves them apart. Moves are numbered; the order of the history never rests on a clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

from pydantic import ValidationError

from modelmill.core.contract import Closed
from modelmill.core.errors import InputError, StoreError
from modelmill.core.manifest import canonical
from modelmill.core.records import utc_now
from modelmill.core.registry_documents import BUNDLE_FORMAT, CHANNEL_FORMAT, BundleRecord, Channel, Move
from modelmill.core.store import Document, Store, hex_of, refuse_newer

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
ATTEMPTS = 100
"""One of the racing writers lands in every round, so that 8 of them with 10 moves each need far fewer."""

D = TypeVar("D", bound=Closed)


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


def served(store: Store, channel: Channel) -> BundleRecord | None:
    """The record of the bundle that a channel names, with the artifact that this channel leads to, or None.

    Raises:
        StoreError: As `find_bundle`.
    """
    record = find_bundle(store, channel.model, channel.bundle)
    return record.led_to(channel.artifact_of(channel.bundle)) if record else None


def register_bundle(
    store: Store,
    model: str,
    bundle: str,
    artifact: str,
    run: str | None,
    signer: str | None = None,
    judged_on: Sequence[str] = (),
) -> BundleRecord:
    """Register a bundle once for each who signs it: what was registered before stays, as long as it is whole.

    The same model made again is the same bundle in another artifact, since its evidence was measured anew: of each
    signer the first artifact is the one that channels lead to. What nobody signed is as good as what somebody did.

    Returns:
        The record, with the artifact for this signer as the one that holds the bundle.

    Raises:
        StoreError: As `find_bundle`.
    """
    name = _bundle_name(model, bundle)
    record = BundleRecord(
        model=model,
        bundle=bundle,
        artifact=artifact,
        registered_at=utc_now(),
        run=run,
        signer=signer,
        judged_on=list(judged_on),
    )
    for _ in range(ATTEMPTS):
        if store.create(name, canonical(record.model_dump(mode="json"))):
            return record
        found = _read(store, name, BundleRecord)
        if found is None:
            continue
        registered, document = found
        own = [at for at, who in registered.signers.items() if signer is None or who == signer]
        known = next((at for at in reversed(own) if at == artifact or usable(store, at)), None)
        if known is not None:
            return registered.led_to(known)
        after = record.model_copy(
            update={"earlier": {at: who for at, who in registered.signers.items() if at not in own}}
        )
        if store.replace(name, canonical(after.model_dump(mode="json")), document.version):
            return after
    raise keeps_changing(name)


def show_channel(store: Store, model: str, channel: str) -> Channel | None:
    """What a channel names and how it came to it, or None where nothing was ever promoted to it.

    Raises:
        StoreError: The store is away, or the document is damaged or of a newer format.
    """
    found = read_channel(store, model, channel)
    return found[0] if found else None


def read_channel(store: Store, model: str, channel: str) -> tuple[Channel, Document] | None:
    """A channel and the document that it stands in, for who replaces it.

    Raises:
        StoreError: As `show_channel`.
    """
    return _read(store, channel_name(model, channel), Channel)


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
    """The artifacts of bundles that channels need, and what those were judged on.

    They are those that a channel names or has as its reference, that one of the ``last`` entries of its history that
    changed it or held a bundle back names (None: ever), and those registered that no channel has named yet. A bundle
    whose record is gone holds none.

    Raises:
        StoreError: The store is away, or a document is damaged or of a newer format.
    """
    held = set()
    for model in models(store):
        ever: set[str] = set()
        kept: set[str] = set()
        for channel in channels(store, model):
            shown = show_channel(store, model, channel)
            if shown is not None:
                moves = [move for move in shown.history if move.offered or move.bundle != move.previous]
                ever |= _named(moves)
                kept |= {shown.bundle, *([shown.reference] if shown.reference else [])} | _named(
                    moves if last is None else moves[-max(1, last) :]
                )
        gone = ever - kept
        kept_records = [record for record in bundles(store, model) if record.bundle not in gone]
        held |= {artifact for record in kept_records for artifact in (*record.signers, *record.judged_on)}
    return held


def _named(moves: list[Move]) -> set[str]:
    return {bundle for move in moves for bundle in (move.bundle, move.offered) if bundle}


def _bundle_name(model: str, bundle: str) -> str:
    return f"registry/{check_name(model, 'model')}/bundles/{hex_of(bundle)}.json"


def channel_name(model: str, channel: str) -> str:
    """The name of a channel's document in the store."""
    return f"registry/{check_name(model, 'model')}/channels/{check_name(channel, 'channel')}.json"


def usable(store: Store, artifact: str) -> bool:
    """Whether an artifact is whole; it is then as young as a new one, so that no collector takes it now."""
    return store.check_artifact(artifact) is None and store.renew_artifact(artifact)


def _read(store: Store, name: str, kind: type[D]) -> tuple[D, Document] | None:
    document = store.read(name)
    if document is None:
        return None
    try:
        content = json.loads(document.content)
        refuse_newer(content, "registry document", name, CHANNEL_FORMAT if kind is Channel else BUNDLE_FORMAT)
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


def keeps_changing(name: str) -> StoreError:
    """The error for a document that others changed in each of very many attempts."""
    what = f"{name} kept changing through {ATTEMPTS} attempts"
    return StoreError(what, where=name, fix="run again")
