"""Where an artifact came from, by the digests that manifests name."""

from __future__ import annotations

from collections.abc import Iterator

from modelmill.core.errors import CorruptArtifactError
from modelmill.core.store import Store


def ancestor(store: Store, digest: str, port: str) -> str | None:
    """The digest that was given to an input port named ``port`` on the way to an artifact, the nearest one.

    Args:
        store: Holds the artifact and what it was made from.
        digest: The artifact.
        port: An input port's name: ``checkpoint``.

    Returns:
        The digest, or None where no artifact on the way that is still in the store had such an input.
    """
    seen: set[str] = set()
    here = [digest]
    while here:
        following: list[str] = []
        for at in here:
            for name, source in _inputs(store, at):
                if name == port:
                    return source
                if source not in seen:
                    seen.add(source)
                    following.append(source)
        here = following
    return None


def _inputs(store: Store, digest: str) -> Iterator[tuple[str, str]]:
    try:
        manifest = store.read_manifest(digest)
    except CorruptArtifactError:
        return
    for name, at in (manifest.made_from if manifest else {}).items():
        for source in at.values() if isinstance(at, dict) else [at]:
            yield name, str(source)
