"""Look up what a channel names before the step key is made: another champion is another comparison."""

from __future__ import annotations

from modelmill.core import registry
from modelmill.core.served import Opponent, Sensed
from modelmill.core.store import Store
from modelmill.steps.evaluate.contract import CandidateSettings


def sense(store: Store, settings: CandidateSettings) -> tuple[CandidateSettings, dict[str, str]]:
    """The settings with what the channel names, and the bundles' digests by port.

    Raises:
        StoreError: The store is away, or the registry cannot be read.
    """
    served = settings.served
    if served is None:
        return settings, {}
    channel = registry.show_channel(store, served.model, served.channel)
    named = {
        Opponent.CHAMPION: channel.bundle if channel else None,
        Opponent.REFERENCE: channel.reference if channel else None,
    }
    found: dict[str, Sensed | None] = {opponent.value: None for opponent in Opponent}
    digests: dict[str, str] = {}
    for opponent in served.against:
        bundle = named[opponent]
        gone = None
        if bundle is not None:
            record = registry.find_bundle(store, served.model, bundle)
            if record is None:
                gone = "is not in the registry any more"
            elif store.read_manifest(record.artifact) is None:
                gone = "is gone from the store"
            else:
                digests[opponent.value] = record.artifact
        found[opponent.value] = Sensed(bundle=bundle, gone=gone)
    return settings.model_copy(update={"served": served.model_copy(update=found)}), digests
