"""An address on S3, without a client for it: what compiles a pipeline needs none."""

from __future__ import annotations

import re

from modelmill.core.errors import UsageError

BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
BUCKET_IN_WORDS = "a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens"
_PREFIX = r"(/[^/?#@\s]+)*"
PATTERN = rf"^s3://{BUCKET}{_PREFIX}/?$"
"""Of a store's address, for a schema; that no part is ``..`` it does not say."""


def parse_store(uri: str) -> tuple[str, str]:
    """Bucket and prefix of a store's address.

    Raises:
        UsageError: It names no bucket, or more than a bucket and a prefix.
    """
    bucket, slash, prefix = uri.removeprefix("s3://").partition("/")
    if not re.fullmatch(BUCKET, bucket):
        # What stands before an @ may be a key and its secret: it is not repeated.
        told = "what the store's address names" if "@" in uri else f"{bucket!r} in the store's address {uri!r}"
        what = f"{told} is no bucket's name"
        raise UsageError(what, fix=f"write s3://BUCKET/PREFIX; {BUCKET_IN_WORDS}")
    path = (slash + prefix).removesuffix("/")
    if not re.fullmatch(_PREFIX, path) or ".." in path.split("/"):
        odd = re.search(r"[?#\s]|\.\.|//", path)
        told = f": {prefix!r} holds {odd[0]!r}" if odd and "@" not in uri else ""
        what = f"the store's URI is not of the form s3://BUCKET/PREFIX{told}"
        fix = "give bucket and prefix alone; credentials and endpoint come from AWS_* variables or ~/.aws"
        raise UsageError(what, fix=fix)
    return bucket, path.strip("/")
