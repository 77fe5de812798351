"""A store in an S3 bucket, or in anything that speaks S3 with conditional writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from modelmill.core.cache import cache_directory
from modelmill.core.manifest import Manifest
from modelmill.core.progress import Progress
from modelmill.core.s3_address import parse_store
from modelmill.core.s3_artifacts import S3Artifacts
from modelmill.core.s3_client import Bucket
from modelmill.core.s3_scratch import S3Scratch, S3ScratchFolder
from modelmill.core.store import Document, Removed, document_name, hex_of

_RESERVED = ("artifacts/", "scratch/", "retiring/")


class S3Store:
    """`modelmill.core.store.Store` in a bucket, by boto3's standard credential chain and ``AWS_ENDPOINT_URL``.

    Needs strong read-after-write consistency and conditional PUTs (``If-None-Match: *``, ``If-Match``): AWS S3, MinIO
    and SeaweedFS have both.

    Args:
        bucket: Where objects are.
        cache: A local directory for verified copies; it may be removed while nothing runs.
    """

    def __init__(self, bucket: Bucket, cache: Path) -> None:
        self.uri = bucket.uri
        self._bucket = bucket
        self._artifacts = S3Artifacts(bucket, cache)
        self._scratch = S3ScratchFolder(bucket, cache)

    @classmethod
    def open(cls, uri: str) -> S3Store:
        """The store at ``s3://BUCKET/PREFIX``; nothing is asked of the server yet.

        Raises:
            UsageError: The URI names no bucket, or more than a bucket and a prefix.
        """
        return cls(Bucket(*parse_store(uri)), cache_directory())

    def artifact_uri(self, digest: str) -> str:
        """The artifact's ``s3://`` prefix."""
        return f"{self.uri}/artifacts/{hex_of(digest)}"

    def put_artifact(self, directory: Path, manifest: Manifest, progress: Progress) -> None:
        """Store the files of ``directory``; see `Store.put_artifact`."""
        self._artifacts.put(directory, manifest, progress)

    def get_artifact(self, digest: str, progress: Progress) -> Path:
        """A verified copy in the cache."""
        return self._artifacts.get(digest, progress)

    def check_artifact(self, digest: str) -> str | None:
        """What is wrong with an artifact by its objects' sizes and checksums, or None; no file is read."""
        return self._artifacts.check(digest)

    def read_manifest(self, digest: str) -> Manifest | None:
        """The artifact's manifest, or None where it is missing."""
        return self._artifacts.read_manifest(digest)

    def delete_artifact(self, digest: str) -> None:
        """Remove an artifact, its manifest first."""
        self._artifacts.delete(digest)

    def list_artifacts(self) -> Iterator[tuple[str, float]]:
        """(digest, time of last change or renewal by the server's clock) of all artifacts, incomplete ones too."""
        return self._artifacts.digests()

    def renew_artifact(self, digest: str) -> bool:
        """Make an artifact young; False where it is gone. Waits for a collector that is just looking at it."""
        return self._artifacts.renew(digest)

    def retire_artifact(self, digest: str, older_than: float) -> Removed | None:
        """Remove an artifact unless it was stored or renewed after ``older_than``."""
        return self._artifacts.retire(digest, older_than)

    def discard_leftovers(self, older_than: float) -> Removed:
        """Abort open multipart uploads below the prefix; remove what killed downloads left in the cache."""
        return self._artifacts.discard_leftovers(older_than)

    def now(self) -> float:
        """The server's clock."""
        return self._bucket.now()

    def read(self, name: str) -> Document | None:
        """The document ``name``, or None."""
        return self._bucket.read(document_name(name))

    def create(self, name: str, content: bytes) -> bool:
        """Write a document that must not exist (``If-None-Match: *``)."""
        return self._bucket.write(document_name(name), content, absent=True)

    def replace(self, name: str, content: bytes, version: str) -> bool:
        """Write a document whose ETag must still be ``version`` (``If-Match``)."""
        return self._bucket.write(document_name(name), content, match=version)

    def delete(self, name: str, version: str | None = None) -> bool:
        """Remove a document; given a version, only while it is that one."""
        return self._bucket.delete(document_name(name), version)

    def list_documents(self, prefix: str) -> Iterator[tuple[str, float]]:
        """(name, time of last change) of the documents whose names start with ``prefix``, sorted by name."""
        for item in self._bucket.list(prefix):
            if "/" in item.name and not item.name.startswith(_RESERVED):
                yield item.name, item.changed_at

    def open_scratch(self, key: str, progress: Progress) -> AbstractContextManager[S3Scratch]:
        """The scratch directory of a step key: local, what is saved mirrored in the bucket."""
        return self._scratch.open(key, progress)

    def discard_scratch(self, older_than: float) -> int:
        """Remove scratch not touched since ``older_than``."""
        return self._scratch.discard(older_than)
