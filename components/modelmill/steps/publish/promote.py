"""What publish does in the store besides its bundle: it registers the bundle and moves the channel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelmill.core import bundle as bundles
from modelmill.core import registry
from modelmill.core.contract import Report
from modelmill.core.errors import InputError
from modelmill.core.progress import Progress
from modelmill.core.store import Store
from modelmill.steps.publish import sign
from modelmill.steps.publish.contract import Settings


def promote(store: Store, outputs: Mapping[str, tuple[Path, str]], settings: Settings, progress: Progress) -> Report:
    """Register the bundle and let the channel name it. Done in every run, cached or not; a second time nothing changes.

    The bundle is registered before the channel moves, so that a channel never names what the registry does not know;
    the channel moves in one compare-and-swap, so that a kill at any moment leaves it on the old bundle or on the new.

    Args:
        store: Where the bundle is stored and the registry lies.
        outputs: ``bundle`` → its directory and its artifact's digest.
        settings: The step's.
        progress: Told what the channel names now.

    Returns:
        Facts: bundle and artifact (digests; the artifact is the one registered first), channel, moved, previous.

    Raises:
        InputError: The bundle is damaged, was made for another model, or is not signed by publish's own key.
        StoreError: The store is away, or the registry cannot be read.
    """
    directory, artifact = outputs["bundle"]
    document = bundles.read_bundle(directory)
    if document.model != settings.model:
        what = f"this bundle is of the model {document.model}, and {settings.model} is published"
        raise InputError(what, where=str(directory), fix="run the recipe again to make the bundle anew")
    known = registry.find_bundle(store, settings.model, document.digest)
    if known is None or known.artifact != artifact or known.signer != settings.signer:
        sign.check(directory, settings)
    record = registry.register_bundle(store, settings.model, document.digest, artifact, settings.run, settings.signer)
    done = registry.move_channel(store, settings.model, settings.channel, document.digest, settings.run)
    moved = "now names" if done.moved else "names already"
    progress.fact(f"{settings.model} {settings.channel} {moved} {document.digest}")
    return Report(
        facts={
            "bundle": document.digest,
            "artifact": record.artifact,
            "channel": settings.channel,
            "moved": done.moved,
            "previous": done.previous,
        }
    )
