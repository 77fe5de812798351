"""Which bundle a person means, and what its evidence says: what is looked at before a promotion by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from modelmill.core import bundle as bundles
from modelmill.core import registry
from modelmill.core.errors import ChampionError, InputError, UsageError
from modelmill.core.evidence import LaneEvidence, Verdict
from modelmill.core.registry_documents import BundleRecord, Channel
from modelmill.core.served import Opponent
from modelmill.core.store import Store, hex_of

_SHORTEST_DIGEST = 6


def find_named(store: Store, model: str, text: str) -> BundleRecord:
    """The registered bundle that a person names.

    Args:
        store: Where the registry lies.
        model: The model's name in the registry.
        text: Its digest, the digest's first digits, or where its artifact lies.

    Raises:
        UsageError: None or more than one is named so.
        StoreError: The store is away, or a record is damaged or of a newer format.
    """
    asked = text.rstrip("/").rsplit("/", 1)[-1].removeprefix("sha256:").lower()
    known = list(registry.bundles(store, model))
    found = [
        record.led_to(artifact)
        for record in known
        if re.fullmatch(f"[0-9a-f]{{{_SHORTEST_DIGEST},64}}", asked)
        for artifact in _meant(record, asked)
    ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{hex_of(record.bundle)[:12]} ({record.registered_at})" for record in found or known)
    what = f"{text!r} is {'more than one bundle' if found else 'no registered bundle'} of {model} in {store.uri}"
    raise UsageError(what, where="BUNDLE", fix=f"name one by its digest: {names or 'none is registered yet'}")


def find_served(store: Store, model: str, channel: str) -> BundleRecord:
    """The record of what a channel leads to, for who serves it.

    Raises:
        UsageError: The channel names no registered bundle.
        StoreError: The store is away, or a document is damaged or of a newer format.
    """
    found = registry.show_channel(store, model, channel)
    record = registry.served(store, found) if found else None
    if record is None:
        what = f"the channel {channel} of {model} names no registered bundle in {store.uri}"
        raise UsageError(what, where="MODEL CHANNEL", fix=f"see: modelmill channel show {model} {channel}")
    return record


def _meant(record: BundleRecord, asked: str) -> list[str]:
    """The artifact that hex digits mean: the one they name, or a bundle's own; none where they mean neither."""
    named = [artifact for artifact in record.signers if hex_of(artifact).startswith(asked)]
    return named or ([record.artifact] if hex_of(record.bundle).startswith(asked) else [])


def verdicts_of(directory: Path) -> dict[str, LaneEvidence]:
    """Target → the verdict on it.

    Args:
        directory: The bundle, its bytes verified by the store.

    Raises:
        InputError: It is no bundle, or a verdict in it cannot be read.
    """
    found = {}
    for target, lane in bundles.read_bundle(directory).lanes.items():
        path = directory / lane.verdict
        try:
            found[target] = LaneEvidence.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            what = f"the verdict of the lane {target} cannot be read"
            raise InputError(what, where=str(path), fix="run the recipe again to make the bundle anew") from None
    return found


def champions_of(verdicts: Mapping[str, LaneEvidence]) -> dict[str, str | None]:
    """The bundle that the channel named when each lane was judged, for lanes that were held against a champion.

    Returns:
        Target → the champion's digest, or None where the channel named none yet.
    """
    held = {target: evidence.against.get(Opponent.CHAMPION) for target, evidence in verdicts.items()}
    return {target: champion.bundle for target, champion in held.items() if champion is not None}


def judged_on(verdicts: Mapping[str, LaneEvidence]) -> list[str]:
    """The artifacts that a cluster is asked again: the evaluation rows and each lane's predictions of them."""
    ports = ("rows", "candidate")
    return sorted({lane.digests[port] for lane in verdicts.values() for port in ports if port in lane.digests})


def require_champion(before: Channel | None, bundle: str, held_against: Mapping[str, str | None]) -> None:
    """Check that what a channel names is what every lane was held against.

    Args:
        before: The channel; None where it names nothing.
        bundle: What it is to name.
        held_against: Target → the champion, as `champions_of` tells.

    Raises:
        ChampionError: It names another bundle by now.
    """
    others = {target: at for target, at in held_against.items() if before is not None and at != before.bundle}
    if before is None or not others:
        return
    target, at = next(iter(others.items()))
    what = (
        f"the channel {before.channel} of {before.model} names {before.bundle} by now, and the lane {target} of the "
        f"bundle {bundle} was held against {at or 'nothing, since nothing was promoted yet'}: "
        "the channel stays as it is"
    )
    fix = (
        "run the recipe again: it is held against what the channel names now, and what had finished is in the store. "
        f"The bundle stays registered: modelmill channel promote {before.model} {before.channel} {bundle[:19]} takes "
        "it as it is"
    )
    raise ChampionError(what, where=registry.channel_name(before.model, before.channel), fix=fix)


def failing_lanes(directory: Path, digest: str) -> list[str]:
    """The lanes of a bundle whose evidence is no passing verdict about the model there, each with what it says.

    Args:
        directory: The bundle, its bytes verified by the store.
        digest: The bundle's digest in the registry.

    Raises:
        InputError: It is no bundle, or another one than the registry says; no reason overrides that.
    """
    document = bundles.read_bundle(directory)
    if document.digest != digest:
        what = f"the registry says {digest} of an artifact that is the bundle {document.digest}"
        raise InputError(what, where=str(directory), fix="promote another bundle: this record was tampered with")
    found = []
    for target, lane in document.lanes.items():
        try:
            evidence = LaneEvidence.model_validate_json((directory / lane.verdict).read_bytes())
        except (OSError, ValidationError):
            found.append(f"{target} has no verdict that can be read")
            continue
        if evidence.digests.get("model") != lane.model or evidence.target != target:
            found.append(f"{target} has the verdict of another model")
        elif evidence.verdict is not Verdict.PASS:
            found.append(f"{target} says {evidence.verdict.value}")
    return found
