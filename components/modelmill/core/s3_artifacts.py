"""Artifacts in a bucket: files first, the manifest last; removal and reliance exclude each other without locks.

S3 has no lock, so a collector and those who rely on an artifact shake hands (Dekker's way): the collector writes a
*retiring* mark, then looks at the age, then removes, then takes the mark away. Who relies on an artifact renews its
manifest, then looks for the mark. S3 reads what was written last, so at least one of the two sees the other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from botocore.exceptions import ClientError

from modelmill.core import durable
from modelmill.core.artifact_folder import ArtifactFolder
from modelmill.core.errors import CorruptArtifactError, StoreError
from modelmill.core.manifest import MANIFEST, FileEntry, Manifest, canonical, relative_files
from modelmill.core.progress import Progress
from modelmill.core.s3_client import Bucket, Listed, encoded, is_missing
from modelmill.core.s3_transfer import DamagedError, download, upload
from modelmill.core.store import Removed, changed, hex_of, manifest_from

_ATTEMPTS = 5
_HEADS_AT_ONCE = 8
# A collector gives up a removal that it has not begun after this time, ...
_RETIRE_SECONDS = 30.0
# ... and its requests end before this one is over (5 attempts of 65 s each and their backoff).
ABANDONED_SECONDS = 600.0


class S3Artifacts:
    """``artifacts/<hex>/`` in a bucket, and their verified copies in a local cache."""

    def __init__(self, bucket: Bucket, cache: Path) -> None:
        self._bucket = bucket
        self._cache_root = cache
        self._cache = ArtifactFolder(cache)

    def put(self, source: Path, manifest: Manifest, progress: Progress) -> None:
        """Store what is missing of an artifact; renew it where it is whole."""
        digest = manifest.digest
        found = dict(relative_files(source))
        for _ in range(_ATTEMPTS):
            problems = self._problems(digest, manifest)
            if problems:
                missing = {name: entry for name, entry in manifest.files.items() if name in problems}
                total = sum(entry.size for entry in missing.values())
                with progress.bar(f"store {manifest.type}", total, "bytes") as bar:
                    for name, entry in missing.items():
                        if name not in found:
                            raise changed(source / name)
                        upload(self._bucket, self._name(digest, name), found[name], entry, bar)
                if MANIFEST in problems:
                    content = canonical(manifest.model_dump(mode="json"))
                    self._bucket.write(self._name(digest, MANIFEST), content, absent=problems[MANIFEST] == "is missing")
            # Looked at again after the renewal: a collector may have taken files that were there at the first look.
            if self.renew(digest) and not (problems and self._problems(digest, manifest)):
                return
        what = f"the artifact {digest} keeps changing while it is stored"
        raise StoreError(what, where=f"{self._bucket.uri}/{self._name(digest, '')}", fix="run again")

    def get(self, digest: str, progress: Progress) -> Path:
        """A verified copy in the cache; one process downloads, others that want the same wait for it."""
        manifest = self.read_manifest(digest)
        if manifest is None:
            what = f"the artifact {digest} is missing"
            raise CorruptArtifactError(what, digest=digest, where=f"{self._bucket.uri}/{self._name(digest, '')}")
        if self._cache.check(digest) is not None:
            with durable.told(self._cache_root, "fetch an artifact"):
                lock = self._cache_root / "locks" / hex_of(digest)
                with durable.locked(lock):
                    self._fetch(manifest, progress)
        return self._cache.path(digest)

    def check(self, digest: str) -> str | None:
        """What is wrong with an artifact by its objects' sizes and checksums, or None."""
        try:
            manifest = self.read_manifest(digest)
        except CorruptArtifactError as error:
            return f"is damaged: {error.what}"
        if manifest is None:
            return "is missing"
        problems = self._file_problems(digest, manifest)
        for name, problem in sorted(problems.items()):
            return f"is damaged: {name} {problem}"
        return None

    def read_manifest(self, digest: str) -> Manifest | None:
        """The manifest, or None where there is none."""
        name = self._name(digest, MANIFEST)
        document = self._bucket.read(name)
        return None if document is None else manifest_from(document.content, digest, f"{self._bucket.uri}/{name}")

    def renew(self, digest: str) -> bool:
        """Write the manifest once more as it is; False where it is gone."""
        name = self._name(digest, MANIFEST)
        while True:
            document = self._bucket.read(name)
            if document is None or not self._bucket.write(name, document.content, match=document.version):
                if document is None or self._bucket.read(name) is None:
                    return False
                continue
            if not self._retiring(digest):
                # A collector that had looked before that write may have ended since, and taken it along.
                return self._bucket.read(name) is not None
            time.sleep(0.2)

    def retire(self, digest: str, older_than: float) -> Removed | None:
        """Remove an artifact unless something of it is younger; None where it is, or another collector is at it."""
        mark = f"retiring/{hex_of(digest)}"
        begun = time.monotonic()
        if not self._bucket.write(mark, durable.token().encode(), absent=True):
            return None
        try:
            found = list(self._bucket.list(self._name(digest, "")))
            # LastModified is cut to the second, so that it may be up to one too old.
            if not found or max(item.changed_at for item in found) + 1 > older_than:
                return None
            if time.monotonic() - begun > _RETIRE_SECONDS:
                return None
            return self._remove(digest, found)
        finally:
            self._bucket.delete(mark)

    def delete(self, digest: str) -> None:
        """Remove an artifact, its manifest first."""
        found = list(self._bucket.list(self._name(digest, "")))
        if found:
            self._remove(digest, found)

    def digests(self) -> Iterator[tuple[str, float]]:
        """(digest, time of the youngest object) of all artifacts, incomplete ones too."""
        present, changed_at = "", 0.0
        for item in self._bucket.list("artifacts/"):
            match = re.match(r"artifacts/([0-9a-f]{64})/", item.name)
            if match is None:
                continue
            if match[1] != present:
                if present:
                    yield f"sha256:{present}", changed_at
                present, changed_at = match[1], 0.0
            changed_at = max(changed_at, item.changed_at)
        if present:
            yield f"sha256:{present}", changed_at

    def discard_leftovers(self, older_than: float) -> Removed:
        """Abort open multipart uploads, take away abandoned marks and what killed downloads left in the cache."""
        in_cache = self._cache.discard_leftovers(older_than)
        count = in_cache.count
        for item in list(self._bucket.list("retiring/")):
            if item.changed_at <= min(older_than, self._bucket.now() - ABANDONED_SECONDS):
                count += self._bucket.delete(item.name)
        with self._bucket.told("abort uploads"):
            pages = self._bucket.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket.name, Prefix=self._bucket.key("")
            )
            for page in pages:
                for opened in page.get("Uploads", []):
                    if opened["Initiated"].timestamp() <= older_than:
                        count += self._abort(opened["Key"], opened["UploadId"])
        return Removed(count, in_cache.size)

    def _abort(self, key: str, upload_id: str) -> bool:
        try:
            self._bucket.client.abort_multipart_upload(Bucket=self._bucket.name, Key=key, UploadId=upload_id)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "NoSuchUpload":
                raise
            return False
        return True

    def _name(self, digest: str, file: str) -> str:
        return f"artifacts/{hex_of(digest)}/{file}"

    def _fetch(self, manifest: Manifest, progress: Progress) -> None:
        """Download, verify and install an artifact in the cache, unless another process has just done it."""
        digest = manifest.digest
        present = self._cache.identity(digest)
        if self._cache.check(digest) is None:
            return
        with self._cache.staging() as staged:
            with progress.bar(f"fetch {manifest.type}", manifest.size, "bytes") as bar:
                for name, entry in manifest.files.items():
                    try:
                        download(self._bucket, self._name(digest, name), staged / name, entry, bar)
                    except DamagedError as error:
                        # Taken away, so that who looks at sizes and stored checksums sees it and stores it again.
                        with suppress(StoreError):
                            self._bucket.delete(self._name(digest, name))
                        what = f"the artifact {digest} is damaged: {error}"
                        where = f"{self._bucket.uri}/{self._name(digest, name)}"
                        raise CorruptArtifactError(what, digest=digest, where=where) from None
                    durable.protect(staged / name)
            self._cache.install(staged, manifest, present)

    def _problems(self, digest: str, manifest: Manifest) -> dict[str, str]:
        """File (manifest.json too) → what is wrong with it in the bucket."""
        try:
            missing = {} if self.read_manifest(digest) else {MANIFEST: "is missing"}
        except CorruptArtifactError as error:
            missing = {MANIFEST: error.what}
        return {**self._file_problems(digest, manifest), **missing}

    def _file_problems(self, digest: str, manifest: Manifest) -> dict[str, str]:
        def problem(item: tuple[str, FileEntry]) -> tuple[str, str | None]:
            return item[0], self._problem(self._name(digest, item[0]), item[1])

        with ThreadPoolExecutor(_HEADS_AT_ONCE) as pool:
            found = list(pool.map(problem, manifest.files.items()))
        return {name: words for name, words in found if words is not None}

    def _problem(self, name: str, entry: FileEntry) -> str | None:
        with self._bucket.told(f"look at {name}"):
            try:
                found = self._bucket.client.head_object(
                    Bucket=self._bucket.name, Key=self._bucket.key(name), ChecksumMode="ENABLED"
                )
            except ClientError as error:
                if is_missing(error):
                    return "is missing"
                raise
        if found["ContentLength"] != entry.size or found["Metadata"].get("sha256") != entry.sha256:
            return "differs from its manifest"
        # A checksum of parts ("…-3") is over the parts' checksums and says nothing of the whole.
        checksum = found.get("ChecksumSHA256", "-")
        if "-" not in checksum and checksum != encoded(entry.sha256):
            return "differs from its sha256"
        return None

    def _remove(self, digest: str, found: list[Listed]) -> Removed:
        self._bucket.delete(self._name(digest, MANIFEST))
        self._bucket.delete_all([item.name for item in found])
        return Removed(1, sum(item.size for item in found))

    def _retiring(self, digest: str) -> bool:
        """Whether a collector is at the artifact; a mark that outlived its collector is taken away."""
        mark = f"retiring/{hex_of(digest)}"
        for item in self._bucket.list(mark):
            if self._bucket.now() - item.changed_at < ABANDONED_SECONDS:
                return True
            self._bucket.delete(mark)
        return False
