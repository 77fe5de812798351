"""What a reader gives: rows as they were written, each with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RawRow:
    """One row under the data's own column names.

    Attributes:
        id: ``file:line``; of a Parquet file the row's number from 1, of botocore the operation's name.
        values: Column → value.
    """

    id: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Split:
    """The rows of one split.

    Attributes:
        name: As recipes write it.
        folder: Where its file lies, for messages: a row is at ``folder/id``.
        source: The file's name, or the package's.
        rows: In the file's order.
    """

    name: str
    folder: str
    source: str
    rows: list[RawRow]

    def where(self, row: RawRow) -> str:
        """A row's place, for messages."""
        return f"{self.folder}/{row.id}"
