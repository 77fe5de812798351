"""Parquet, with the types that `datasets` wrote beside the columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features

from modelmill.core.errors import DataError
from modelmill.steps.fetch.readers.text_files import MAX_BYTES

MAX_ROWS = 50_000_000
BATCH_ROWS = 1000
"""Rows in memory at once: what a page unpacks to is bounded by them and not by what the file says of itself."""


def parquet_rows(path: Path, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, row) of a Parquet file. A ClassLabel column gives its names instead of its numbers.

    The features are those `datasets` keeps in the file's schema; the batches are pyarrow's, because
    `datasets.load_dataset` would either write the file a second time or, streaming, load torch (6 s here).

    Raises:
        DataError: It is no Parquet file, is damaged, or is larger than a data set can be.
    """
    name = where.rsplit("/", 1)[-1]
    number = 0
    try:
        file = pq.ParquetFile(path)
        with file:
            size = sum(file.metadata.row_group(index).total_byte_size for index in range(file.metadata.num_row_groups))
            if size > MAX_BYTES or file.metadata.num_rows > MAX_ROWS:
                what = f"{name} holds {file.metadata.num_rows} rows and {size} bytes, by its own account"
                fix = f"give at most {MAX_ROWS} rows and {MAX_BYTES >> 30} GiB"
                raise DataError(what, where=where, fix=fix)
            features = Features.from_arrow_schema(file.schema_arrow)
            classes = {column: kind for column, kind in features.items() if isinstance(kind, ClassLabel)}
            unpacked = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                unpacked += batch.nbytes
                if unpacked > MAX_BYTES:
                    what = f"{name} grows to more than {MAX_BYTES >> 30} GiB"
                    raise DataError(what, where=f"{where}:{number + 1}", fix="give fewer rows")
                for index in range(batch.num_rows):
                    row = {column: batch.column(column)[index].as_py() for column in batch.schema.names}
                    number += 1
                    yield number, {**row, **_named(row, classes)}
    except UnicodeDecodeError as error:
        what = f"row {number + 1} of {name} is not UTF-8: byte 0x{error.object[error.start]:02x}"
        raise DataError(what, where=f"{where}:{number + 1}", fix="write its texts as UTF-8") from None
    except (pa.ArrowException, OSError) as error:
        after = f" after row {number}" if number else ""
        what = f"{name} is no sound Parquet file{after}: {str(error).splitlines()[0]}"
        raise DataError(what, where=where, fix="write the file again") from None


def _named(row: dict[str, Any], classes: dict[str, ClassLabel]) -> dict[str, str]:
    return {
        column: kind.int2str(row[column])
        for column, kind in classes.items()
        if row[column] is not None and 0 <= row[column] < kind.num_classes
    }
