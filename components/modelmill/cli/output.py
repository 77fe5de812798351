"""What commands print: results on stdout, as one JSON document or as a table for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE = 200
"""Columns assumed where stdout is no terminal, so that a pipe gets whole values."""


def console() -> Console:
    """The console on stdout."""
    return Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else _WIDE)


def print_json(document: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """Print text as it is."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; cells are plain text, never markup."""
    table = Table(title=title or None, title_justify="left", header_style="bold", show_edge=False, pad_edge=False)
    for name in columns:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*(Text("–" if cell is None else str(cell)) for cell in row))
    console().print(table)


def megabytes(size: float) -> str:
    """Bytes as MB for people."""
    return f"{size / 1e6:.1f} MB"


def short(digest: str | None) -> str | None:
    """The first twelve digits of a digest."""
    return digest.removeprefix("sha256:")[:12] if digest else None
