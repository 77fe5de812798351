"""JSON Lines and CSV, value by value as written, with the exact place of every fault.

`datasets`' builders for the two guess types and know no row numbers: measured with datasets 5.2, the JSON text
``"2021-01-01"`` came back as a datetime, the CSV text ``NA`` as None and the CSV label ``007`` as 7.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelmill.core.errors import DataError

MAX_BYTES = 4 << 30
"""Of a data file, decompressed."""
MAX_RATIO = 200
"""Decompressed over compressed bytes. English text compresses 3 to 6 times, gzip's own limit is 1032."""
RATIO_FREE_BYTES = 16 << 20
"""Decompressed bytes below which no ratio is an attack."""
MAX_LINE_BYTES = 16 << 20
_CHUNK = 1 << 20


def decompress(path: Path, target: Path, where: str) -> None:
    """Write a .gz file's content to ``target``, within bounds.

    Raises:
        DataError: It is no gzip file, is damaged, or grows past what a data set can be.
    """
    name, compressed, size = path.name, path.stat().st_size, 0
    try:
        with gzip.open(path) as stream, target.open("wb") as output:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if size > MAX_BYTES or (size > RATIO_FREE_BYTES and size > MAX_RATIO * compressed):
                    what = f"{name} grows to more than {size} bytes out of {compressed}: no data set does"
                    fix = f"give a file under {MAX_BYTES >> 30} GiB that grows less than {MAX_RATIO} times"
                    raise DataError(what, where=where, fix=fix)
                output.write(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        what = f"{name} is no whole gzip file: {error}"
        raise DataError(what, where=where, fix="compress or copy the file again") from None


def lines_of(path: Path, where: str) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of a UTF-8 file; a byte order mark is left out.

    Raises:
        DataError: A line is not UTF-8 or longer than any row.
    """
    name = where.rsplit("/", 1)[-1]
    if path.stat().st_size > MAX_BYTES:
        what = f"{name} is larger than {MAX_BYTES >> 30} GiB"
        raise DataError(what, where=where, fix="give fewer rows")
    offset = 0
    with path.open("rb") as stream:
        for number in range(1, 1 << 62):
            raw = stream.readline(MAX_LINE_BYTES + 1)
            if not raw:
                return
            if len(raw) > MAX_LINE_BYTES:
                what = f"line {number} of {name} is longer than {MAX_LINE_BYTES >> 20} MiB"
                raise DataError(what, where=f"{where}:{number}", fix="write one row a line")
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                what = (
                    f"line {number} of {name} is not UTF-8: byte 0x{raw[error.start]:02x} "
                    f"at offset {offset + error.start} of the file"
                )
                raise DataError(what, where=f"{where}:{number}", fix="save the file as UTF-8") from None
            offset += len(raw)


def json_lines(path: Path, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a JSON Lines file; empty lines are passed over.

    Raises:
        DataError: A line is no JSON object.
    """
    name = where.rsplit("/", 1)[-1]
    for number, line in lines_of(path, where):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            kind = "it looks like one JSON array" if number == 1 and line.lstrip().startswith("[") else str(error)
            what = f"line {number} of {name} is no JSON object: {kind}"
            raise DataError(what, where=f"{where}:{number}", fix="write one JSON object a line") from None
        if not isinstance(row, dict):
            what = f"line {number} of {name} is no JSON object: it is a {type(row).__name__}"
            raise DataError(what, where=f"{where}:{number}", fix="write one JSON object a line")
        yield number, row


def csv_rows(path: Path, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a CSV file with a header, every value a string as written. RFC 4180: comma, quotes.

    Raises:
        DataError: The header is wrong, or a row has other fields than it.
    """
    name = where.rsplit("/", 1)[-1]
    reader = csv.reader((line for _, line in lines_of(path, where)), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header) or not all(column.strip() for column in header):
            what = f"{name} has a column without a name, or two of one name: {', '.join(header) or 'none'}"
            raise DataError(what, where=f"{where}:1", fix="give every column a name of its own in the first line")
        begin = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                what = f"line {begin} of {name} has {len(fields)} fields, and the header names {len(header)} columns"
                fix = "quote a field that holds a comma, and separate fields by commas"
                raise DataError(what, where=f"{where}:{begin}", fix=fix)
            if fields:
                yield begin, dict(zip(header, fields, strict=True))
            begin = reader.line_num + 1
    except csv.Error as error:
        what = f"line {reader.line_num} of {name} is no CSV: {error}"
        raise DataError(
            what, where=f"{where}:{reader.line_num}", fix="quote as RFC 4180 says, or use JSON Lines"
        ) from None
