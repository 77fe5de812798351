"""Whole files to and from a bucket: verified on the way, in bounded memory, with a bar."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)

from modelmill.core.manifest import CHUNK, FileEntry
from modelmill.core.progress import Bar
from modelmill.core.s3_client import Bucket, back_off, encoded, is_missing, status_of
from modelmill.core.store import changed

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

SINGLE_REQUEST_BYTES = 16 << 20
"""A larger file goes up in parts."""
_PART_BYTES = 8 << 20
_MOST_PARTS = 10_000
_PARTS_AT_ONCE = 4
_ATTEMPTS = 5


class DamagedError(Exception):
    """What came from the bucket is not what the manifest says."""


def upload(bucket: Bucket, name: str, path: Path, entry: FileEntry, bar: Bar) -> None:
    """Store a file as an object with its SHA-256 on the wire and in its metadata.

    Memory: one request of up to 16 MiB, or five parts (8 MiB each up to 80 GB, more beyond: S3 takes 10,000).

    Raises:
        StoreError: The file is not what ``entry`` says; nothing is stored then.
    """
    if not path.is_file() or path.stat().st_size != entry.size:
        raise changed(path)
    if entry.size > SINGLE_REQUEST_BYTES:
        _upload_parts(bucket, name, path, entry, bar)
        return
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise changed(path)
    with bucket.told(f"store {name}"):
        bucket.client.put_object(
            Bucket=bucket.name,
            Key=bucket.key(name),
            Body=content,
            ChecksumSHA256=encoded(entry.sha256),
            Metadata={"sha256": entry.sha256},
        )
    bar.advance(entry.size)


def _upload_parts(bucket: Bucket, name: str, path: Path, entry: FileEntry, bar: Bar) -> None:
    key = bucket.key(name)
    size = max(_PART_BYTES, -(-entry.size // _MOST_PARTS))
    with bucket.told(f"store {name}"):
        upload_id = bucket.client.create_multipart_upload(
            Bucket=bucket.name,
            Key=key,
            ChecksumAlgorithm="SHA256",
            Metadata={"sha256": entry.sha256},
        )["UploadId"]

    def send(number: int, content: bytes) -> CompletedPartTypeDef:
        with bucket.told(f"store {name}"):
            checksum = encoded(hashlib.sha256(content).hexdigest())
            answer = bucket.client.upload_part(
                Bucket=bucket.name,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=content,
                ChecksumSHA256=checksum,
            )
        bar.advance(len(content))
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    try:
        parts: list[CompletedPartTypeDef] = []
        under_way: deque[Future[CompletedPartTypeDef]] = deque()
        hasher = hashlib.sha256()
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool, path.open("rb") as stream:
            while content := stream.read(size):
                hasher.update(content)
                if len(under_way) == _PARTS_AT_ONCE:
                    parts.append(under_way.popleft().result())
                under_way.append(pool.submit(send, len(parts) + len(under_way) + 1, content))
            parts.extend(future.result() for future in under_way)
        if hasher.hexdigest() != entry.sha256:
            raise changed(path)
        with bucket.told(f"store {name}"):
            try:
                bucket.client.complete_multipart_upload(
                    Bucket=bucket.name, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}
                )
            except ClientError as error:
                # A retry of a completion whose answer was lost finds no such upload, but the object.
                if status_of(error) != 404 or not _is_stored(bucket, name, entry):
                    raise
    except BaseException:
        with suppress(BotoCoreError, ClientError):
            bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=key, UploadId=upload_id)
        raise


def _is_stored(bucket: Bucket, name: str, entry: FileEntry) -> bool:
    try:
        found = bucket.client.head_object(Bucket=bucket.name, Key=bucket.key(name))
    except ClientError as error:
        if is_missing(error):
            return False
        raise
    return found["ContentLength"] == entry.size and found["Metadata"].get("sha256") == entry.sha256


def download(bucket: Bucket, name: str, path: Path, entry: FileEntry, bar: Bar) -> None:
    """Write an object into a new file, hashing what comes; a broken connection is resumed where it broke.

    Raises:
        DamagedError: The object is missing or other bytes than ``entry`` says.
        StoreError: The store is away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    hasher = hashlib.sha256()
    done = 0
    with bucket.told(f"fetch {name}"), path.open("xb") as writer:
        for attempt in range(_ATTEMPTS):
            try:
                answer = (
                    bucket.client.get_object(Bucket=bucket.name, Key=bucket.key(name), Range=f"bytes={done}-")
                    if done
                    else bucket.client.get_object(Bucket=bucket.name, Key=bucket.key(name))
                )
                with closing(answer["Body"]) as body:
                    for chunk in body.iter_chunks(CHUNK):
                        hasher.update(chunk)
                        writer.write(chunk)
                        done += len(chunk)
                        bar.advance(len(chunk))
                        if done > entry.size:
                            what = f"{name} is larger than its manifest says"
                            raise DamagedError(what)
                break
            except FlexibleChecksumError:
                what = f"{name} differs from its stored checksum"
                raise DamagedError(what) from None
            except ClientError as error:
                if is_missing(error) or status_of(error) == 416:
                    what = f"{name} is missing or too short"
                    raise DamagedError(what) from None
                raise
            except (HTTPClientError, IncompleteReadError):
                if attempt + 1 == _ATTEMPTS:
                    raise
                back_off(attempt)
    if done != entry.size or hasher.hexdigest() != entry.sha256:
        what = f"{name} differs from its sha256"
        raise DamagedError(what)
