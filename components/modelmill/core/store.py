"""Where artifacts live: what a local directory and an S3 prefix both promise.

Layout, the same in both::

    artifacts/<hex digest>/…         files, and manifest.json, written last
    keys/<hex step key>.json         which artifacts a step stored, and how it went (`modelmill.core.records`)
    scratch/<hex step key>/…         what a killed attempt leaves to the next
    runs/<run>.json                  run documents (`modelmill.core.records`)
    runs/<run>.<holder>.lease        leases of live runs (`modelmill.core.leases`)
    recipes/<hex digest>.json        recipes by digest
    pushed/<name>.json               what `modelmill push` stored
    registry/<model>/…               bundles, channels, history (`modelmill.core.registry`); written by publish alone

A tree is complete when its manifest is there; documents are small and change only by compare-and-swap.

What may be removed is decided by age (`modelmill.core.gc`), so whoever relies on something that lies there already
*renews* it first: `renew_artifact` and `retire_artifact` exclude each other, and who renewed keeps the artifact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from modelmill.core.errors import CorruptArtifactError, StoreError, UsageError
from modelmill.core.manifest import Manifest, safe_name
from modelmill.core.progress import Progress


@dataclass(frozen=True)
class Document:
    """A small stored file and the token of its present version."""

    content: bytes
    version: str
    """Opaque: an ETag on S3, a content hash on disk."""


@dataclass(frozen=True)
class Removed:
    """What was taken away."""

    count: int
    size: int
    """Bytes."""


class Scratch(Protocol):
    """A directory that outlives a killed attempt.

    What lay there when the attempt was killed and had not been reported as saved is not there for the next one.
    """

    path: Path

    def saved(self, path: Path) -> None:
        """Make ``path`` (a file or directory below `path`) durable: complete, it is there for the next attempt.

        It is not changed afterwards, or said to be saved again. What was saved before and has been removed since is
        forgotten.
        """
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
        """(digest, time of last change or renewal by the store's clock) of all artifacts, incomplete ones too."""
        ...

    def renew_artifact(self, digest: str) -> bool:
        """Make an artifact that lies there already as young as a new one; False where it is gone or going.

        After True no `retire_artifact` takes it before it has aged again.
        """
        ...

    def retire_artifact(self, digest: str, older_than: float) -> Removed | None:
        """Remove an artifact unless it was stored or renewed after ``older_than``; None where it stays or was gone."""
        ...

    def discard_leftovers(self, older_than: float) -> Removed:
        """Remove what killed writers left behind and nobody sees: temporary files, open multipart uploads."""
        ...

    def now(self) -> float:
        """The store's clock in seconds since the epoch: what the times in its listings are compared with."""
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

    def delete(self, name: str, version: str | None = None) -> bool:
        """Remove a document; given a ``version``, only while it still is that one. False where nothing was removed.

        A missing one is no error.
        """
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
    """The hex part of ``sha256:…``.

    Raises:
        StoreError: It is no digest: a name made of it could lie anywhere.
    """
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        what = f"{digest[:80]!r} is no digest of the form sha256:<64 hex digits>"
        raise StoreError(what, fix="run again: what refers to it is damaged")
    return digest.removeprefix("sha256:")


def document_name(name: str) -> str:
    """``name`` if it can name a document.

    Raises:
        UsageError: It leaves the store, or lies where artifacts and scratch do.
    """
    try:
        parts = safe_name(name).split("/")
    except StoreError:
        parts = []
    if len(parts) < 2 or parts[0] in ("artifacts", "scratch", "tmp") or any(part in ("", ".") for part in parts):
        what = f"{name!r} cannot name a document of the store"
        raise UsageError(what, fix="use a name such as registry/MODEL/channels.json")
    return name


def manifest_from(content: bytes, digest: str, where: str) -> Manifest:
    """The manifest in ``content``, which must be that of ``digest`` and stay inside its directory.

    Raises:
        CorruptArtifactError: It cannot be read, its files are not what the digest is over, or one of them would lie
            outside the artifact.
        StoreError: A newer modelmill wrote it.
    """
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    refuse_newer(document, "artifact", where)
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError:
        what = "its manifest.json cannot be read"
        raise CorruptArtifactError(what, digest=digest, where=where) from None
    for name in manifest.files:
        try:
            safe_name(name)
        except StoreError as error:
            raise CorruptArtifactError(error.what, digest=digest, where=where) from None
    if manifest.digest != digest:
        what = "its manifest.json lists other files than the digest is over"
        raise CorruptArtifactError(what, digest=digest, where=where)
    return manifest


def refuse_newer(document: object, kind: str, where: str, newest: int = 1) -> None:
    """Refuse a stored document whose format is newer than this modelmill knows.

    Raises:
        StoreError: Its ``format`` is above ``newest``.
    """
    number = document.get("format") if isinstance(document, dict) else None
    if isinstance(number, int) and number > newest:
        what = f"this {kind} has format {number}, written by a newer modelmill; this one reads format {newest}"
        raise StoreError(what, where=where, fix="upgrade modelmill, or use another store")


def changed(path: Path) -> StoreError:
    """The error for a file that is not what its manifest says when it is stored."""
    what = f"{path.name} changed while it was stored, or is gone"
    return StoreError(what, where=str(path), fix="run again")
