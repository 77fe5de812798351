"""A channel's document: one more move in its history, written by one compare-and-swap, a lost race run again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from modelmill.core import registry
from modelmill.core.manifest import canonical
from modelmill.core.records import utc_now
from modelmill.core.registry_documents import CHANNEL_FORMAT, Channel, Move, MoveKind
from modelmill.core.store import Store

_LONGEST_PAUSE_SECONDS = 0.5


def moved_on(
    before: Channel | None,
    model: str,
    channel: str,
    kind: MoveKind,
    bundle: str,
    *,
    artifact: str | None = None,
    run: str | None = None,
    by: str | None = None,
    why: str | None = None,
    override: bool = False,
    offered: str | None = None,
    reference: str | None = None,
) -> Channel:
    """A channel with one more entry in its history; it leads to the artifact that it led to, unless told another."""
    history = before.history if before else []
    move = Move(
        number=len(history) + 1,
        kind=kind,
        bundle=bundle,
        artifact=artifact or (before.artifact_of(bundle) if before else None),
        previous=before.bundle if before else None,
        at=utc_now(),
        run=run,
        by=by,
        why=why,
        override=override,
        offered=offered,
        reference=reference,
    )
    if before is None:
        return Channel(model=model, channel=channel, bundle=bundle, history=[move])
    return before.model_copy(update={"format": CHANNEL_FORMAT, "bundle": bundle, "history": [*history, move]})


def change(
    store: Store, model: str, channel: str, changed: Callable[[Channel | None], Channel | None]
) -> tuple[Channel, bool]:
    """Replace a channel's document by what ``changed`` makes of it; None leaves it as it is.

    Returns:
        The channel as it is now, and whether this call changed it.

    Raises:
        StoreError: The store is away, the document is damaged or of a newer format, or it never stops changing.
    """
    name = registry.channel_name(model, channel)
    for attempt in range(registry.ATTEMPTS):
        found = registry.read_channel(store, model, channel)
        after = changed(found[0] if found else None)
        if after is None and found is not None:
            return found[0], False
        if after is not None:
            content = canonical(after.model_dump(mode="json"))
            if store.replace(name, content, found[1].version) if found else store.create(name, content):
                return after, True
        time.sleep(random.uniform(0, min(_LONGEST_PAUSE_SECONDS, 0.005 * 2**attempt)))
    raise registry.keeps_changing(name)
