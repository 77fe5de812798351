"""Telling the mirrors what the registry says: what was registered, and what channels name.

A mirror is behind the registry or with it; it never decides anything. So its trouble is written down beside the
registry and told, and neither undoes nor stops a promotion: the next publish, or ``modelmill mirror``, brings it what
it missed. What a mirror is told of a channel is what the registry says then, and the registry is read again after: of
racing writers the last to tell a mirror has read the newest move.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field, ValidationError

from modelmill.core import registry
from modelmill.core.contract import JSON, Closed
from modelmill.core.errors import MirrorError, ModelmillError, StoreError
from modelmill.core.manifest import canonical
from modelmill.core.progress import Progress
from modelmill.core.records import Digest, utc_now
from modelmill.core.store import Document, Store, refuse_newer
from modelmill.steps.publish.mirror import Mirror, MirrorCredentials, Registered
from modelmill.steps.publish.mirror_settings import Mirrors
from modelmill.steps.publish.mlflow_mirror import MlflowRegistry

_MOVES = 20
"""How often a channel that keeps moving is told anew before the writer who moved it is left to do so."""


class State(StrEnum):
    """How a mirror stands to the registry."""

    CURRENT = "current"
    BEHIND = "behind"


class MirrorRecord(Closed):
    """``registry/<model>/mirrors/<mirror>.json``: how a mirror stands, and what it has missed."""

    format: int = 1
    model: str
    mirror: str
    where: str = Field(description="its address")
    state: State
    at: str = Field(description="UTC, ISO 8601: since when")
    words: str | None = Field(None, description="behind: what is wrong, where, and what to do")
    missed: list[Digest] = Field(default_factory=list, description="bundles that it was not told of")


@dataclass(frozen=True)
class Mirrored:
    """What became of telling one mirror.

    Attributes:
        mirror: ``mlflow`` or ``hub``.
        where: Its address.
        done: What was changed there, in words.
        error: What kept it behind; None where it is current.
    """

    mirror: str
    where: str
    done: tuple[str, ...] = ()
    error: ModelmillError | None = None

    @property
    def state(self) -> State:
        """How the mirror stands now."""
        return State.CURRENT if self.error is None else State.BEHIND

    @property
    def words(self) -> str:
        """For people, on one line."""
        if self.error is not None:
            return "; ".join(text.rstrip(".") for text in (self.error.what, self.error.fix) if text)
        return "; ".join(self.done) or "nothing to do"

    def facts(self) -> dict[str, JSON]:
        """For a run's record."""
        return {"mirror": self.mirror, "where": self.where, "state": self.state.value, "words": self.words}


def follow(
    store: Store,
    settings: Mirrors,
    model: str,
    progress: Progress,
    *,
    bundles: Iterable[str] = (),
    credentials: MirrorCredentials | None = None,
) -> list[Mirrored]:
    """Bring the mirrors of a model up to what its registry says.

    Args:
        store: Where the registry lies.
        settings: The mirrors.
        model: The model's name in the registry.
        progress: Told what became of each.
        bundles: Digests that each mirror is to have besides those that it missed and those that channels name.
        credentials: For the mirrors; the environment's where left out.

    Returns:
        One for each mirror; nothing is raised for one that is behind.
    """
    used = credentials or MirrorCredentials.from_environment(os.environ)
    wanted = tuple(bundles)
    found = []
    for name, where in _named(settings, model).items():
        done: list[str] = []
        try:
            _follow(store, name, where, settings, model, wanted, used, progress, done)
            mirrored = Mirrored(name, where, tuple(done))
        except ModelmillError as error:
            mirrored = Mirrored(name, where, tuple(done), error)
        progress.fact(f"mirror {name}: {mirrored.words}" if mirrored.error is None else _warning(mirrored, model))
        found.append(mirrored)
    return found


def standing(store: Store, model: str) -> list[MirrorRecord]:
    """How the mirrors of a model stood when they were last told.

    Raises:
        StoreError: The store is away, or a record is damaged or of a newer format.
    """
    prefix = f"registry/{registry.check_name(model, 'model')}/mirrors/"
    read = (_read(store, name) for name, _ in store.list_documents(prefix))
    return [found[0] for found in read if found is not None]


def _named(settings: Mirrors, model: str) -> dict[str, str]:
    found = {}
    if settings.mlflow is not None:
        found["mlflow"] = f"{settings.mlflow.address.rstrip('/')} {settings.mlflow.registered(model)}"
    if settings.hub is not None:
        found["hub"] = f"{settings.hub.address.rstrip('/')}/{settings.hub.named(model)}"
    return found


def _opened(name: str, settings: Mirrors, model: str, credentials: MirrorCredentials) -> Mirror:
    if name == "mlflow" and settings.mlflow is not None:
        return MlflowRegistry(settings.mlflow, model, credentials)
    # The Hub's client is not in the light image: only who has this mirror needs it.
    module = importlib.import_module("modelmill.steps.publish.hub_mirror")
    opened: Mirror = module.opened(settings.hub, model, credentials)
    return opened


def _follow(
    store: Store,
    name: str,
    where: str,
    settings: Mirrors,
    model: str,
    bundles: tuple[str, ...],
    credentials: MirrorCredentials,
    progress: Progress,
    done: list[str],
) -> None:
    """Tell one mirror; what was changed is added to ``done`` as it happens.

    Raises:
        ModelmillError: It is behind; what it missed is written down.
    """
    document = f"registry/{model}/mirrors/{name}.json"
    before = _read(store, document)
    channels = registry.channels(store, model)
    shown = [registry.show_channel(store, model, channel) for channel in channels]
    named = [channel.bundle for channel in shown if channel is not None]
    missed = before[0].missed if before else []
    left = list(dict.fromkeys([*missed, *bundles, *named]))
    try:
        mirror = _opened(name, settings, model, credentials)
        found = [(digest, _registered(store, model, digest, progress)) for digest in left]
        # The earliest first, as far as clocks tell: where a mirror numbers them, the numbers say the same.
        for digest, bundle in sorted(found, key=lambda item: item[1].record.registered_at if item[1] else ""):
            # One that a collector has removed since is nothing to tell of.
            if bundle is not None and (words := mirror.put(bundle)):
                done.append(words)
            left.remove(digest)
        for channel in channels:
            done += _point(store, mirror, model, channel, progress)
    except Exception as error:
        # A client's own mistake must not stop a promotion either.
        what = f"telling {name} failed in a way that has no words yet: {type(error).__name__} {error}"
        fix = "report it with these words; nothing but the mirror is behind"
        known = error if isinstance(error, ModelmillError) else MirrorError(what, where=where, fix=fix)
        _write(store, document, model, name, where, Mirrored(name, where, error=known).words, add=left, told=())
        raise known from None
    _write(store, document, model, name, where, None, add=(), told=[*missed, *bundles, *named])


def _point(store: Store, mirror: Mirror, model: str, channel: str, progress: Progress) -> list[str]:
    told, done = None, []
    for _ in range(_MOVES):
        found = registry.show_channel(store, model, channel)
        if found is None or found.bundle == told:
            break
        bundle = _registered(store, model, found.bundle, progress)
        if bundle is None:
            what = f"the channel {channel} of {model} names {found.bundle}, which is gone from the store"
            fix = f"modelmill channel rollback {model} {channel}, or run the recipe again"
            raise StoreError(what, where=store.uri, fix=fix)
        words = mirror.point(channel, bundle)
        done += [words] if words else []
        told = found.bundle
    return done


def _registered(store: Store, model: str, digest: str, progress: Progress) -> Registered | None:
    record = registry.find_bundle(store, model, digest)
    if record is None or store.read_manifest(record.artifact) is None:
        return None
    return Registered(store, record, progress)


def _warning(mirrored: Mirrored, model: str) -> str:
    later = f"modelmill mirror {model}, with the same --deployment, brings it what it missed, and so does the next run"
    return f"mirror {mirrored.mirror} is behind, and nothing waits for it: {mirrored.words}. {later}"


def _read(store: Store, name: str) -> tuple[MirrorRecord, Document] | None:
    document = store.read(name)
    if document is None:
        return None
    try:
        content = json.loads(document.content)
        refuse_newer(content, "registry document", name, 1)
        return MirrorRecord.model_validate(content), document
    except (ValidationError, ValueError):
        what = "a document of the registry cannot be read: it was damaged, or modelmill did not write it"
        fix = "remove it: it only says what a mirror has missed, and modelmill mirror --all tells it everything"
        raise StoreError(what, where=f"{store.uri}/{name}", fix=fix) from None


def _write(
    store: Store,
    name: str,
    model: str,
    mirror: str,
    where: str,
    words: str | None,
    *,
    add: Iterable[str],
    told: Iterable[str],
) -> None:
    """Write down how a mirror stands, whoever else does meanwhile; what has not changed is not written."""
    add, told = list(add), set(told)
    for _ in range(registry.ATTEMPTS):
        found = _read(store, name)
        missed = [digest for digest in (found[0].missed if found else []) if digest not in told]
        missed = list(dict.fromkeys([*missed, *add]))
        state = State.BEHIND if words or missed else State.CURRENT
        record = MirrorRecord(
            model=model, mirror=mirror, where=where, state=state, at=utc_now(), words=words, missed=missed
        )
        if found is not None and found[0].model_copy(update={"at": record.at}) == record:
            return
        content = canonical(record.model_dump(mode="json"))
        if store.replace(name, content, found[1].version) if found else store.create(name, content):
            return
    raise registry.keeps_changing(name)
