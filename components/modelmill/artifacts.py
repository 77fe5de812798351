"""Artifacts of a store, for tasks of your own before and after a step."""

from __future__ import annotations

from pathlib import Path

from modelmill.core import manifest, registry
from modelmill.core.contract import Port, PortType
from modelmill.core.errors import UsageError
from modelmill.core.progress import SilentProgress
from modelmill.core.stores import open_store
from modelmill.runners.given import digest_of_given


def put(store: str, directory: Path, type: str) -> str:
    """Store a directory as an artifact.

    ``modelmill gc`` keeps it for its grace alone unless a run uses it.

    Args:
        store: The store's URI.
        directory: Holds the artifact's files: for rows, ``rows.jsonl`` and ``dataset.json``.
        type: What it is: ``rows``, ``checkpoint``, ``model``.

    Returns:
        Its digest, which a step's input takes.

    Raises:
        UsageError: There is no such type.
        InputError: It is no artifact of that type.
        StoreError: The store is away.
    """
    if type not in list(PortType):
        what = f"there are no artifacts of the type {type!r}"
        raise UsageError(what, where="type", fix=f"the types are: {', '.join(PortType)}")
    digest_of_given(Port(name="directory", type=PortType(type), description=""), directory)
    made = manifest.build(directory, type)
    open_store(store).put_artifact(directory, made, SilentProgress())
    return made.digest


def get(store: str, digest: str) -> Path:
    """The directory of an artifact, its bytes checked; its files are read-only.

    Args:
        store: The store's URI.
        digest: ``sha256:…``, as a step's task told it.

    Raises:
        StoreError: The store is away, or does not hold it whole.
    """
    return open_store(store).get_artifact(digest, SilentProgress())


def serving(store: str, model: str, channel: str) -> str:
    """The digest of the bundle's artifact that a channel names: a model artifact, too.

    Args:
        store: The store's URI.
        model: The model's name in the registry.
        channel: The channel.

    Raises:
        UsageError: The channel names no bundle.
        StoreError: The store is away.
    """
    opened = open_store(store)
    named = registry.show_channel(opened, model, channel)
    record = registry.find_bundle(opened, model, named.bundle) if named else None
    if record is None:
        what = f"the channel {channel} of the model {model} names no bundle"
        raise UsageError(what, where=opened.uri, fix="see modelmill channel show")
    return record.artifact
