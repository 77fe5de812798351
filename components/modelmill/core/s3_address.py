"""An address on S3, without a client for it: what compiles a pipeline needs none."""

from __future__ import annotations

import re

from modelmill.core.errors import UsageError

_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_PREFIX = r"(/[^/?#@\s]+)*"
PATTERN = rf"^s3://{_BUCKET}{_PREFIX}/?$"
"""Of a store's address, for a schema; that no part is ``..`` it does not say."""


def parse_store(uri: str) -> tuple[str, str]:
    """Bucket and prefix of a store's address.

    Raises:
        UsageError: It names no bucket, or more than a bucket and a prefix.
    """
    bucket, slash, prefix = uri.removeprefix("s3://").partition("/")
    if not re.fullmatch(_BUCKET, bucket):
        # What stands before an @ may be a key and its secret: it is not repeated.
        told = "what the store's address names" if "@" in uri else f"{bucket!r} in the store's address {uri!r}"
        what = f"{told} is no bucket's name"
        fix = "write s3://BUCKET/PREFIX; a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens"
        raise UsageError(what, fix=fix)
    path = (slash + prefix).removesuffix("/")
    if not re.fullmatch(_PREFIX, path) or ".." in path.split("/"):
        what = "the store's URI is not of the form s3://BUCKET/PREFIX"
        fix = "give bucket and prefix alone; credentials and endpoint come from AWS_* variables or ~/.aws"
        raise UsageError(what, fix=fix)
    return bucket, path.strip("/")
