"""How many rows are tried beside others, and how: what the search looks at, the evaluation looks at again."""

from __future__ import annotations

ROWS = 256
"""Rows that are predicted three times more, at most: with none of them flipping, at most 1.2 % of all do, at 95 %."""
MIXED = 8
"""Rows of a mixed batch: a few, as a server gathers in milliseconds."""
PADDING = 16
"""Tokens by which a row is padded more, as a longer text beside it would."""
