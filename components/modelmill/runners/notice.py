"""How a run ended, told to an address: one JSON document by POST."""

from __future__ import annotations

import http.client
import json
import os
import urllib.request
from collections.abc import Mapping

from modelmill.core.contract import JSON

NOTIFY_VARIABLE = "MODELMILL_NOTIFY_URL"
"""The address; where it is not set, nobody is told."""
_SECONDS = 10


def tell(document: Mapping[str, JSON]) -> str | None:
    """Tell whoever wants to know.

    Args:
        document: What to tell.

    Returns:
        What went wrong, without the address, which may hold a token; None where it is told or nobody asked.
    """
    url = os.environ.get(NOTIFY_VARIABLE)
    if not url:
        return None
    try:
        request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return None
    # OverflowError is of a port beyond all numbers, HTTPException of what is no address or answers other than HTTP.
    except (OSError, ValueError, OverflowError, http.client.HTTPException) as problem:
        return f"the end of the run could not be told to {NOTIFY_VARIABLE}: {type(problem).__name__}"
