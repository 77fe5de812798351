"""``s3://BUCKET/PREFIX``: objects directly below a prefix, through boto3's standard credential chain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from modelmill.core.errors import DeploymentError, SourceError
from modelmill.core.manifest import CHUNK
from modelmill.core.progress import Progress
from modelmill.steps.fetch.sources.base import (
    Choose,
    Fetched,
    Purpose,
    check_pin,
    destination,
    digest_of,
    write_chunks,
)

ATTEMPTS = 5
"""Of a request by botocore (backoff with jitter), and of a body that broke off."""
_REFUSED = frozenset({"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
_MISSING = frozenset({"NoSuchBucket", "NoSuchKey", "404"})
_BROKEN_OFF = (HTTPClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError)


class Prefix:
    """Objects below a prefix, pinned by their ETags and sizes."""

    def __init__(self, bucket: str, prefix: str, purpose: Purpose) -> None:
        self._bucket, self._prefix, self._purpose = bucket, f"{prefix}/" if prefix else "", purpose
        self._where = f"s3://{bucket}/{prefix}".rstrip("/")
        config = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "max_attempts": ATTEMPTS})
        try:
            # A session of its own: boto3's default one keeps the first credentials it found for as long as the
            # process lives.
            self._client = boto3.session.Session().client("s3", config=config)
        except BotoCoreError as error:
            raise self._refused(str(error)) from None

    def pin(self, choose: Choose) -> str:
        """Digest of the ETags and sizes of what ``choose`` picks; one listing, no object is read."""
        listed = self._list()
        return digest_of({name: _identity(listed[name]) for name in choose(sorted(listed))})

    def fetch(self, choose: Choose, pin: str | None, directory: Path, progress: Progress) -> list[Fetched]:
        """Download what ``choose`` picks, each object only as long as it has the ETag that was listed."""
        listed = self._list()
        chosen = list(choose(sorted(listed)))
        check_pin(digest_of({name: _identity(listed[name]) for name in chosen}), pin, self._where)
        fetched = []
        total = sum(int(listed[name]["Size"]) for name in chosen)
        with progress.bar(f"download {self._purpose}", total, "bytes") as bar:
            for name in chosen:
                target = destination(directory, name, self._purpose)
                sha256, size = write_chunks(self._chunks(name, listed[name]), target, bar)
                fetched.append(Fetched(name, target, f"{self._where}/{name}", sha256, size))
        return fetched

    def _list(self) -> dict[str, dict[str, Any]]:
        """Name below the prefix → its entry in the listing."""
        listed: dict[str, dict[str, Any]] = {}
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix, Delimiter="/"
            )
            for page in pages:
                for entry in page.get("Contents", []):
                    name = entry["Key"].removeprefix(self._prefix)
                    if name:
                        listed[name] = dict(entry)
        except (ClientError, BotoCoreError) as error:
            raise self._translated(error) from None
        if not listed:
            what = f"there are no objects below {self._where}/"
            raise self._purpose.error(what, where=self._purpose.field, fix="correct the bucket or the prefix")
        return listed

    def _chunks(self, name: str, entry: dict[str, Any]) -> Iterator[bytes]:
        """An object's bytes; a body that breaks off goes on where it broke."""
        done, failures = 0, 0
        while done < int(entry["Size"]):
            request = {"Bucket": self._bucket, "Key": self._prefix + name, "IfMatch": entry["ETag"]}
            try:
                body = self._client.get_object(**request, Range=f"bytes={done}-")["Body"]
                while chunk := body.read(CHUNK):
                    done += len(chunk)
                    yield chunk
                if done < int(entry["Size"]):
                    failures += 1
            except _BROKEN_OFF as error:
                failures += 1
                if failures >= ATTEMPTS:
                    raise self._translated(error) from None
            except (ClientError, BotoCoreError) as error:
                raise self._translated(error) from None
            if failures >= ATTEMPTS:
                what = f"the download of {name} broke off {failures} times"
                raise SourceError(what, where=f"{self._where}/{name}", fix="run again")

    def _refused(self, words: str) -> DeploymentError:
        what = f"S3 does not let {self._where} be read: {words}"
        fix = "give the run credentials that may list and read it (AWS_ACCESS_KEY_ID or AWS_PROFILE, or the pod's role)"
        return DeploymentError(what, where=self._purpose.field, fix=fix)

    def _translated(self, error: Exception) -> Exception:
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return self._refused(str(error))
        if isinstance(error, ClientError):
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _REFUSED:
                return self._refused(code)
            if code in _MISSING:
                what = f"there is no {self._where}: S3 says {code}"
                return self._purpose.error(what, where=self._purpose.field, fix="correct the bucket or the prefix")
            if code in ("PreconditionFailed", "412"):
                what = "an object changed between being listed and being read"
                return SourceError(what, where=self._where, fix="run again when nobody writes there")
        what = f"S3 is away: {error}"
        fix = "run again; check AWS_ENDPOINT_URL and the network if it stays away"
        return SourceError(what, where=self._where, fix=fix)


def _identity(entry: dict[str, Any]) -> str:
    return f"{entry['ETag']} {entry['Size']}"


def open_source(path: str, purpose: Purpose, mounts: Sequence[Path] | None) -> Prefix:
    """The objects below a prefix.

    Raises:
        InputError: The reference names no bucket.
    """
    bucket, _, prefix = path.partition("/")
    if not bucket:
        what = f"s3://{path} names no bucket"
        raise purpose.error(what, where=purpose.field, fix="write s3://BUCKET/PREFIX")
    return Prefix(bucket, prefix.strip("/"), purpose)
