"""Splits that lie in one file each: .jsonl, .jsonl.gz, .csv, .parquet."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from modelmill.core.errors import DataError
from modelmill.steps.fetch.contract import DataSource
from modelmill.steps.fetch.readers.raw import RawRow, Split
from modelmill.steps.fetch.readers.text_files import csv_rows, decompress, json_lines
from modelmill.steps.fetch.sources.base import Fetched

PARQUET = "modelmill.steps.fetch.readers.parquet"
"""Loaded when a split is in Parquet: its libraries take seconds, and JSON Lines and CSV need none of them."""

Numbered = Iterator[tuple[int, dict[str, Any]]]


def read(files: Sequence[Fetched], splits: Sequence[str], data: DataSource, workspace: Path) -> Mapping[str, Split]:
    """The rows of each split's file, in its order."""
    found = {}
    for name in splits:
        file = next(file for file in files if _split_name(file.name) == name)
        rows = [RawRow(f"{file.name}:{number}", values) for number, values in _rows(file, workspace)]
        if not rows:
            what = f"{file.name} has no rows"
            raise DataError(what, where=file.where, fix=f"write the rows of the split {name} into it")
        found[name] = Split(name, file.where.removesuffix(f"/{file.name}"), file.name, rows)
    return found


def _split_name(name: str) -> str:
    return name.removesuffix(".gz").rpartition(".")[0]


def _rows(file: Fetched, workspace: Path) -> Numbered:
    if file.name.endswith(".parquet"):
        parquet_rows = cast("Callable[[Path, str], Numbered]", importlib.import_module(PARQUET).parquet_rows)
        return parquet_rows(file.path, file.where)
    if file.name.endswith(".csv"):
        return csv_rows(file.path, file.where)
    if file.name.endswith(".gz"):
        plain = workspace / file.name.removesuffix(".gz")
        decompress(file.path, plain, file.where)
        return json_lines(plain, file.where)
    return json_lines(file.path, file.where)
