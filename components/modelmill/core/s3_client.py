"""A bucket and prefix: the client, its retries, its errors in words, and small objects with conditions."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as Unreachable
from botocore.loaders import Loader, create_loader

from modelmill.core import durable
from modelmill.core.errors import StoreError, UsageError
from modelmill.core.store import Document

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ATTEMPTS = 5
_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "AuthorizationHeaderMalformed",
}


@dataclass(frozen=True)
class Listed:
    """One object of a listing."""

    name: str
    """Below the store's prefix."""
    changed_at: float
    """Seconds since the epoch, whole ones: S3's listings have no finer time."""
    size: int


class Bucket:
    """The objects below one prefix of one bucket; names are given without the prefix.

    Requests are retried by botocore's standard mode (5 attempts, exponential backoff with jitter, on throttling, 5xx
    and broken connections; ``AWS_MAX_ATTEMPTS`` sets another number), never on 403 or 404.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self.name = bucket
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        try:
            self.client = _connect()
        except ProfileNotFound as error:
            what = f"the AWS profile {error.kwargs.get('profile')!r} is not configured here"
            raise UsageError(what, fix="correct AWS_PROFILE") from None
        except (BotoCoreError, ValueError) as error:
            what = f"no S3 client can be made for {self.uri}: {type(error).__name__}"
            raise UsageError(what, fix="check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and ~/.aws/config") from None
        self.host = urlsplit(self.client.meta.endpoint_url).netloc.rpartition("@")[2]

    def key(self, name: str) -> str:
        """The object's whole key."""
        return self._prefix + name

    @contextmanager
    def told(self, doing: str) -> Iterator[None]:
        """Say what S3 refuses in one sentence, without its own text: that can quote signatures and key ids.

        Raises:
            StoreError: Always instead of botocore's errors.
        """
        try:
            yield
        except ClientError as error:
            raise self._refusal(error, doing) from None
        except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError):
            what = f"cannot {doing}: no credentials for the store {self.uri} at {self.host}"
            fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role"
            raise StoreError(what, where=self.uri, fix=fix) from None
        except (HTTPClientError, Unreachable) as error:
            what = f"cannot {doing}: the store {self.uri} cannot be reached at {self.host} ({type(error).__name__})"
            fix = "start the server or check AWS_ENDPOINT_URL and the network, then run again"
            raise StoreError(what, where=self.uri, fix=fix) from None
        except BotoCoreError as error:
            what = f"cannot {doing} in the store {self.uri} at {self.host}: {type(error).__name__}"
            raise StoreError(what, where=self.uri, fix="check the AWS_* settings, then run again") from None

    def read(self, name: str) -> Document | None:
        """A small object, or None."""
        with self.told(f"read {name}"):
            try:
                answer = self.client.get_object(Bucket=self.name, Key=self.key(name))
                with closing(answer["Body"]) as body:
                    return Document(body.read(), answer["ETag"])
            except ClientError as error:
                if is_missing(error):
                    return None
                raise

    def write(self, name: str, content: bytes, *, match: str | None = None, absent: bool = False) -> bool:
        """Write a small object; with a condition, only while it holds.

        A refusal that follows a lost answer to the same write is recognised by the writer's token in the metadata.
        (Where a third writer has replaced the object between, the own success is taken for a loss.)

        Args:
            name: The object.
            content: Its bytes, at most some MiB.
            match: The ETag that must be there.
            absent: The object must not be there.

        Returns:
            False where the condition did not hold.
        """
        writer = durable.token()
        with self.told(f"write {name}"):
            for attempt in range(_ATTEMPTS):
                try:
                    self._put(name, content, writer, match=match, absent=absent)
                except ClientError as error:
                    status = status_of(error)
                    if status == 409 and attempt + 1 < _ATTEMPTS:
                        # AWS answers 409 ConditionalRequestConflict to a race that it has not decided yet.
                        back_off(attempt)
                        continue
                    if status == 412 or (match is not None and is_missing(error)):
                        return self._writer(name) == writer
                    raise
                return True
        return False

    def delete(self, name: str, match: str | None = None) -> bool:
        """Remove an object; with an ETag, only while it is that one (where the server knows conditional deletes)."""
        with self.told(f"remove {name}"):
            try:
                answer = self.client.head_object(Bucket=self.name, Key=self.key(name))
                if match is not None and answer["ETag"] != match:
                    return False
                if match is None:
                    self.client.delete_object(Bucket=self.name, Key=self.key(name))
                else:
                    self.client.delete_object(Bucket=self.name, Key=self.key(name), IfMatch=match)
            except ClientError as error:
                if is_missing(error) or status_of(error) in (409, 412):
                    return False
                raise
        return True

    def delete_all(self, names: list[str]) -> None:
        """Remove objects, a thousand in a request."""
        with self.told("remove objects"):
            for start in range(0, len(names), 1000):
                answer = self.client.delete_objects(
                    Bucket=self.name,
                    Delete={
                        "Objects": [{"Key": self.key(name)} for name in names[start : start + 1000]],
                        "Quiet": True,
                    },
                )
                for refused in answer.get("Errors", []):
                    code = re.sub(r"\W", "", refused.get("Code", "unknown"))
                    what = f"the store {self.uri} at {self.host} does not remove objects ({code})"
                    raise StoreError(what, where=refused.get("Key"), fix="allow s3:DeleteObject, then run again")

    def list(self, prefix: str) -> Iterator[Listed]:
        """The objects whose names start with ``prefix``, sorted by name."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.key(prefix))
        with self.told("list objects"):
            for page in pages:
                for item in page.get("Contents", []):
                    name = item["Key"].removeprefix(self._prefix)
                    yield Listed(name, item["LastModified"].timestamp(), item["Size"])

    def now(self) -> float:
        """The server's clock in seconds since the epoch: ours may differ from the one that LastModified is of."""
        with self.told("ask the time"):
            answer = self.client.list_objects_v2(Bucket=self.name, Prefix=self.key("keys/"), MaxKeys=1)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date).timestamp() if date else time.time()

    def _put(self, name: str, content: bytes, writer: str, *, match: str | None, absent: bool) -> None:
        checksum = encoded(hashlib.sha256(content).hexdigest())
        metadata = {"writer": writer}
        bucket, key = self.name, self.key(name)
        if absent:
            self.client.put_object(
                Bucket=bucket, Key=key, Body=content, ChecksumSHA256=checksum, Metadata=metadata, IfNoneMatch="*"
            )
        elif match is not None:
            self.client.put_object(
                Bucket=bucket, Key=key, Body=content, ChecksumSHA256=checksum, Metadata=metadata, IfMatch=match
            )
        else:
            self.client.put_object(Bucket=bucket, Key=key, Body=content, ChecksumSHA256=checksum, Metadata=metadata)

    def _writer(self, name: str) -> str | None:
        try:
            return self.client.head_object(Bucket=self.name, Key=self.key(name))["Metadata"].get("writer")
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    def _refusal(self, error: ClientError, doing: str) -> StoreError:
        status = status_of(error)
        # Only letters: the code comes from the server and goes to a terminal.
        code = re.sub(r"\W", "", str(error.response.get("Error", {}).get("Code", "")))[:60] or str(status)
        at = f"the store {self.uri} at {self.host}"
        if code in _CREDENTIALS or status == 401:
            what = f"cannot {doing}: {at} does not accept these credentials ({code})"
            fix = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE"
        elif status == 403:
            what = f"cannot {doing}: {at} forbids it ({code})"
            fix = f"let these credentials read, write, list and delete below {self.uri}"
        elif code == "NoSuchBucket" or (status == 404 and error.operation_name in ("ListObjectsV2", "HeadBucket")):
            what = f"cannot {doing}: there is no bucket {self.name} at {self.host}"
            fix = "create the bucket, or correct --store and AWS_ENDPOINT_URL"
        elif status >= 500 or code in ("SlowDown", "RequestTimeout", "Throttling"):
            what = f"cannot {doing}: {at} still answers {status} {code} after retries"
            fix = "run again later; what was finished is kept"
        elif code in ("PermanentRedirect", "301"):
            what = f"cannot {doing}: the bucket {self.name} lies in another region than {self.host}"
            fix = "set AWS_DEFAULT_REGION to the bucket's region"
        else:
            what = f"cannot {doing}: {at} answers {status} {code}"
            fix = "check the bucket's settings; run again"
        return StoreError(what, where=self.uri, fix=fix)


def status_of(error: ClientError) -> int:
    """The HTTP status of a refusal."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_missing(error: ClientError) -> bool:
    """Whether a refusal says that the object (not the bucket) is not there."""
    return status_of(error) == 404 and error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404", "NotFound")


def encoded(sha256: str) -> str:
    """A SHA-256 in hex as S3's headers have it: base64 of the bytes."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def back_off(attempt: int) -> None:
    """Wait a random time of up to 0.2 s × 2^attempt, so that rivals do not meet again."""
    time.sleep(random.uniform(0, 0.2 * 2**attempt))


@functools.cache
def _descriptions() -> Loader:
    """Botocore's descriptions of services, parsed once in a process: 0.1 s of the 0.12 s that a client takes."""
    return create_loader()


def _connect() -> S3Client:
    settings = botocore.session.get_session()
    settings.register_component("data_loader", _descriptions())
    session = boto3.session.Session(botocore_session=settings)
    config = Config(
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=16,
        retries={
            "mode": "standard",
            "total_max_attempts": settings.get_config_variable("max_attempts") or _ATTEMPTS,
        },
    )
    scoped = settings.get_scoped_config()
    own = {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} & set(os.environ) or {"endpoint_url", "services"} & set(scoped)
    if own and "s3" not in scoped:
        # A bucket in the host's name (boto3's default) needs a wildcard DNS entry, which self-hosted servers lack.
        config = config.merge(Config(s3={"addressing_style": "path"}))
    return session.client("s3", config=config)
