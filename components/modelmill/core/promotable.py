"""Which bundle a person means, and what its evidence says: what is looked at before a promotion by hand."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from modelmill.core import bundle as bundles
from modelmill.core import registry
from modelmill.core.errors import InputError, UsageError
from modelmill.core.evidence import LaneEvidence, Verdict
from modelmill.core.registry import BundleRecord
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
        record
        for record in known
        if re.fullmatch(f"[0-9a-f]{{{_SHORTEST_DIGEST},64}}", asked)
        and (hex_of(record.bundle).startswith(asked) or hex_of(record.artifact) == asked)
    ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{hex_of(record.bundle)[:12]} ({record.registered_at})" for record in found or known)
    what = f"{text!r} is {'more than one bundle' if found else 'no registered bundle'} of {model} in {store.uri}"
    raise UsageError(what, where="BUNDLE", fix=f"name one by its digest: {names or 'none is registered yet'}")


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
