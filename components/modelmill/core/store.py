"""Where artifacts live: what a local directory and an S3 prefix both promise.

Layout, the same in both::

    artifacts/<hex digest>/…         files, and manifest.json, written last
    keys/<hex step key>.json         which artifacts a step stored, and how it went (`modelmill.core.records`)
    scratch/<hex step key>/…         what a killed attempt leaves to the next
    runs/<run>/…                     run documents and leases
    recipes/<hex digest>.json        recipes by digest
    registry/<model>/…               bundles, channels, history (`modelmill.core.registry`); written by publish alone

A tree is complete when its manifest is there; documents are small and change only by compare-and-swap.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelmill.core.manifest import Manifest
from modelmill.core.progress import Progress


@dataclass(frozen=True)
class Document:
    """A small stored file and the token of its present version."""

    content: bytes
    version: str
    """Opaque: an ETag on S3, a content hash on disk."""


class Scratch(Protocol):
    """A directory that outlives a killed attempt."""

    path: Path

    def saved(self, path: Path) -> None:
        """Make ``path`` (below `path`) durable: complete, it is there for the next attempt."""
        ...

    def clear(self) -> None:
        """Remove it here and in the store: the step has finished."""
        ...


class Store(Protocol):
    """A place for artifacts and documents. Methods raise `StoreError` when the store is away, refuses or is full."""

    uri: str
    """``/absolute/path`` or ``s3://bucket/prefix``."""

    def artifact_uri(self, digest: str) -> str:
        """Where an artifact lies: a directory's path, or an ``s3://`` prefix."""
        ...

    def put_artifact(self, directory: Path, manifest: Manifest, progress: Progress) -> None:
        """Store the files of ``directory``. All or nothing; a no-op where the artifact is already whole.

        The files are verified against the manifest as they are stored; an incomplete or damaged artifact under the
        same digest is repaired.
        """
        ...

    def get_artifact(self, digest: str, progress: Progress) -> Path:
        """A local, read-only directory with the artifact's verified files and its manifest.json.

        Raises:
            CorruptArtifactError: It is missing, incomplete, or its bytes differ from the digest.
        """
        ...

    def check_artifact(self, digest: str) -> str | None:
        """What is wrong with an artifact, in words, or None where it is whole.

        On disk every byte is hashed; on S3 sizes and stored checksums are compared without reading the bytes.
        """
        ...

    def read_manifest(self, digest: str) -> Manifest | None:
        """The artifact's manifest, or None where it is missing."""
        ...

    def delete_artifact(self, digest: str) -> None:
        """Remove an artifact, its manifest first. A missing one is no error."""
        ...

    def list_artifacts(self) -> Iterator[tuple[str, float]]:
        """(digest, time of last change in seconds since the epoch) of all artifacts, incomplete ones too."""
        ...

    def read(self, name: str) -> Document | None:
        """The document ``name`` (``keys/….json``), or None."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Write a document that must not exist yet; False where it does. Exactly one of many racing writers wins."""
        ...

    def replace(self, name: str, content: bytes, version: str) -> bool:
        """Write a document whose version must still be ``version``; False where it has changed or is gone."""
        ...

    def delete(self, name: str) -> None:
        """Remove a document. A missing one is no error."""
        ...

    def list_documents(self, prefix: str) -> Iterator[tuple[str, float]]:
        """(name, time of last change) of the documents whose names start with ``prefix``, sorted by name."""
        ...

    def open_scratch(self, key: str, progress: Progress) -> AbstractContextManager[Scratch]:
        """The scratch directory of a step key, with what a killed attempt saved.

        While it is open no other process gets the same directory: a second attempt that runs at the same time is
        given an empty one of its own.
        """
        ...

    def discard_scratch(self, older_than: float) -> int:
        """Remove scratch not touched since ``older_than`` (seconds since the epoch); how many were removed."""
        ...


def hex_of(digest: str) -> str:
    """The hex part of ``sha256:…``."""
    return digest.removeprefix("sha256:")
