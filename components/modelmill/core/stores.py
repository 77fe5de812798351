"""From a ``--store`` argument to a store."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from modelmill.core.errors import UsageError
from modelmill.core.local_store import LocalStore
from modelmill.core.store import Store


def open_store(uri: str) -> Store:
    """The store at ``uri``: a path, ``file:PATH``, or ``s3://BUCKET/PREFIX``. Nothing is written or asked yet.

    Raises:
        UsageError: It is none of them, its directory is a file, or boto3 is not installed for an ``s3://`` one.
    """
    scheme, separator, _ = uri.partition(":")
    if not uri.strip():
        what = "the store's URI is empty"
        raise UsageError(what, fix="give --store a directory or s3://BUCKET/PREFIX")
    if scheme == "s3" and separator:
        return _open_s3(uri)
    if scheme == "file" and separator:
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            what = f"the store {uri} names another machine"
            raise UsageError(what, fix="write file:///absolute/path or a plain path")
        return LocalStore(Path(unquote(parts.path)))
    if "://" in uri:
        what = f"a store cannot be opened by {scheme}://"
        raise UsageError(what, fix="give --store a directory, file:PATH or s3://BUCKET/PREFIX")
    return LocalStore(Path(uri))


def _open_s3(uri: str) -> Store:
    # boto3 is an extra and takes 0.3 s to import: only who opens a bucket pays for it.
    try:
        module = importlib.import_module("modelmill.core.s3")
    except ModuleNotFoundError as error:
        if error.name not in ("boto3", "botocore"):
            raise
        what = "a store on S3 needs boto3, which is not installed here"
        raise UsageError(what, fix="pip install 'modelmill[s3]'") from None
    return cast("Store", module.S3Store.open(uri))
