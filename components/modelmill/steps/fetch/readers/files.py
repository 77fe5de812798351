"""Splits that lie in one file each: .jsonl, .jsonl.gz, .csv, .parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError

from modelmill.core.errors import DataError
from modelmill.steps.fetch.contract import DataSource
from modelmill.steps.fetch.readers.raw import RawRow, Split
from modelmill.steps.fetch.readers.text_files import MAX_BYTES, csv_rows, decompress, json_lines
from modelmill.steps.fetch.sources.base import Fetched

MAX_ROWS = 50_000_000
_BATCH_ROWS = 1000
_NUMBER = "number"
_VALUES = "values"

Lines = Callable[[Path, str], Iterator[tuple[int, dict[str, Any]]]]


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


def _rows(file: Fetched, workspace: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.name.endswith(".parquet"):
        yield from _parquet_rows(file, workspace)
        return
    path = file.path
    if file.name.endswith(".gz"):
        path = workspace / file.name.removesuffix(".gz")
        decompress(file.path, path, file.where)
    lines: Lines = csv_rows if file.name.endswith(".csv") else json_lines
    dataset = IterableDataset.from_generator(_numbered, gen_kwargs={"lines": lines, "path": path, "where": file.where})
    for example in dataset:
        yield example[_NUMBER], example[_VALUES]


def _numbered(lines: Lines, path: Path, where: str) -> Iterator[dict[str, Any]]:
    for number, values in lines(path, where):
        yield {_NUMBER: number, _VALUES: values}


def _parquet_rows(file: Fetched, workspace: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows by number from 1. A column of `datasets`' ClassLabel gives its names."""
    number = 0
    try:
        metadata = pq.read_metadata(file.path)
        size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
        if size > MAX_BYTES or metadata.num_rows > MAX_ROWS:
            what = f"{file.name} says it holds {metadata.num_rows} rows and {size} bytes"
            fix = f"give at most {MAX_ROWS} rows and {MAX_BYTES >> 30} GiB"
            raise DataError(what, where=file.where, fix=fix)
        dataset = load_dataset(
            "parquet",
            data_files={"rows": str(file.path)},
            split="rows",
            streaming=True,
            batch_size=_BATCH_ROWS,
            cache_dir=str(workspace / "cache"),
        )
        classes = {name: kind for name, kind in dataset.features.items() if isinstance(kind, ClassLabel)}
        for number, example in enumerate(dataset, start=1):
            named = {
                column: kind.int2str(example[column])
                for column, kind in classes.items()
                if example[column] is not None and example[column] >= 0
            }
            yield number, {**example, **named}
    except (pa.ArrowException, DatasetGenerationError, ValueError, OSError) as error:
        after = f" after row {number}" if number else ""
        cause = error.__cause__ or error
        encoding = isinstance(cause, UnicodeDecodeError)
        fault = "a text is not UTF-8" if encoding else str(cause).split("\n")[0]
        what = f"{file.name} is no sound Parquet file{after}: {fault}"
        raise DataError(what, where=file.where, fix="write the file again") from None
