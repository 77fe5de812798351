"""What publish does in the store besides its bundle: it registers the bundle and moves the channel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelmill.core import bundle as bundles
from modelmill.core import channels, promotable, registry
from modelmill.core.contract import JSON, Report
from modelmill.core.errors import InputError
from modelmill.core.progress import Progress
from modelmill.core.store import Store
from modelmill.steps.publish import gitops, mirrors, sign
from modelmill.steps.publish.contract import Settings


def promote(store: Store, outputs: Mapping[str, tuple[Path, str]], settings: Settings, progress: Progress) -> Report:
    """Register the bundle and let the channel name it. Done in every run, cached or not; a second time nothing changes.

    The bundle is registered before the channel moves, so that a channel never names what the registry does not know;
    the channel moves in one compare-and-swap, so that a kill at any moment leaves it on the old bundle or on the new.
    A pinned channel stays where it is: the promotion is recorded as held back, and the run ends as it would have.

    Mirrors are told last, and none is in the way: one that is away is told by the next run.

    With a Git repository of overlays, what the channel names then is committed there; a kill in between is made good by
    the next run, which finds the registry moved and Git not. What can be checked of it is, before the channel moves.

    Args:
        store: Where the bundle is stored and the registry lies.
        outputs: ``bundle`` → its directory and its artifact's digest.
        settings: The step's.
        progress: Told what the channel names now.

    Returns:
        Facts: bundle and artifact (digests; of this signer's artifacts the first), channel, moved, previous, and
        where a pin kept the channel or the overlay as it was ``held``, in words; ``git``, what became of the commit;
        ``mirrors``, how each stands.

    Raises:
        InputError: The bundle is damaged, was made for another model, or is not signed by publish's own key.
        DeploymentError: The overlay, the settings or a key for the Git repository is wrong; nothing has moved.
        StoreError: The store is away, or the registry cannot be read.
        ChampionError: The channel moved on since a lane was held against what it named; the bundle is registered.
        GitError: The Git repository is away, and nothing has moved; or it takes no push, and the channel has moved: the
            message says which, and the next run goes on from there.
    """
    directory, artifact = outputs["bundle"]
    document = bundles.read_bundle(directory)
    if document.model != settings.model:
        what = f"this bundle is of the model {document.model}, and {settings.model} is published"
        raise InputError(what, where=str(directory), fix="run the recipe again to make the bundle anew")
    known = registry.find_bundle(store, settings.model, document.digest)
    if known is None or artifact not in known.signers or known.signers[artifact] != settings.signer:
        sign.check(directory, settings)
    verdicts = promotable.verdicts_of(directory)
    judged_on = promotable.judged_on(verdicts)
    record = registry.register_bundle(
        store, settings.model, document.digest, artifact, settings.run, settings.signer, judged_on
    )
    champions = promotable.champions_of(verdicts)
    if settings.git is not None:
        gitops.require_ready(settings.git, settings.model, settings.channel)
    done = channels.publish(
        store, settings.model, settings.channel, document.digest, settings.run, champions, record.artifact
    )
    held = _held(done)
    moved = "now names" if done.moved else "names already"
    progress.fact(held or f"{settings.model} {settings.channel} {moved} {document.digest}")
    git: dict[str, JSON] | None = None
    if settings.git is not None:
        committed = gitops.follow(store, settings.git, done, progress)
        git = committed.facts()
        held = held or (committed.words if committed.outcome is gitops.Outcome.HELD else None)
    told: list[JSON] = []
    if settings.mirrors is not None:
        registered = [document.digest]
        followed = mirrors.follow(store, settings.mirrors, settings.model, progress, bundles=registered)
        told = [mirrored.facts() for mirrored in followed]
    return Report(
        facts={
            "bundle": document.digest,
            "artifact": record.artifact,
            "channel": settings.channel,
            "moved": done.moved,
            "previous": done.previous,
            **({"held": held} if held else {}),
            **({"git": git} if git else {}),
            **({"mirrors": told} if told else {}),
        }
    )


def _held(done: channels.Moved) -> str | None:
    """Why the channel stayed where it was, and how to go on; None where no pin kept it."""
    if done.pinned is None:
        return None
    channel, why = done.channel, f" ({done.pinned.why})" if done.pinned.why else ""
    return (
        f"held back by the pin: {done.pinned.by} pinned {channel.model} {channel.channel} to {channel.bundle}{why}; "
        f"modelmill channel unpin {channel.model} {channel.channel} lifts it"
    )
