"""Text from data, made fit to stand in a page. Escaping is the template's; this is about what escaping leaves."""

from __future__ import annotations

import re

# Control characters are no HTML; the embedding and override marks of bidirectional text can make a row read as
# another one (CVE-2021-42574, "Trojan Source"). Marks that Arabic and Hebrew need (U+200E, U+200F) stay.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def plain(text: str) -> str:
    """``text`` with control and override characters shown as U+FFFD."""
    return _UNFIT.sub("\ufffd", text)


def cut(text: str, length: int) -> str:
    """``text`` up to ``length`` characters, saying how many were left out."""
    return text if len(text) <= length else f"{text[:length].rstrip()} … ({len(text) - length:,} more characters)"
