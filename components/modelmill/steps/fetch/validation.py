"""Rows as they were written become rows of a task, or an error that names file, row and fix."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from modelmill.core.errors import DataError, RecipeError
from modelmill.core.rows import Row
from modelmill.steps.fetch.contract import DataSource
from modelmill.steps.fetch.readers.raw import RawRow, Split
from modelmill.steps.fetch.selection import listed
from modelmill.tasks.base import Task

LABEL = "label"
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)")


def check_columns(task: Task, data: DataSource) -> None:
    """Check that ``data.columns`` renames columns of the task.

    Raises:
        RecipeError: It names another.
    """
    known = [*task.required_columns, *task.optional_columns]
    for column in data.columns:
        if column not in known:
            near = get_close_matches(column, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            what = f"data.columns names {column!r}, which is no column of {task.name}{hint}"
            fix = f"write TASK'S COLUMN: DATA'S COLUMN; the task's are {', '.join(known)}"
            raise RecipeError(what, where=f"data.columns.{column}", fix=fix)


def columns_of(task: Task, data: DataSource, splits: Mapping[str, Split]) -> list[str]:
    """The task's columns that the rows have: the required ones, and optional ones that the first row fills.

    Raises:
        DataError: A file lacks a required column, or one that ``data.columns`` names.
    """
    for split in splits.values():
        found = list(split.rows[0].values)
        for column in task.required_columns:
            if data.columns.get(column, column) not in found:
                raise _missing(column, data, split, found)
        for column, theirs in data.columns.items():
            if theirs not in found:
                raise _missing(column, data, split, found)
    first = next(iter(splits.values())).rows[0]
    optional = [column for column in task.optional_columns if _value(first, column, data) is not None]
    return [*task.required_columns, *optional]


def _missing(column: str, data: DataSource, split: Split, found: Sequence[str]) -> DataError:
    theirs = data.columns.get(column, column)
    lowered = {name.lower(): name for name in found}
    near = [lowered[match] for match in get_close_matches(theirs.lower(), list(lowered), n=1, cutoff=0.5)]
    hint = f"; the nearest is {near[0]!r}" if near else ""
    what = f"{split.source} has no column {theirs!r}: it has {listed(found)}{hint}"
    example = near[0] if near else "ITS COLUMN"
    fix = f"name it in data.columns: {{{column}: {example}}}"
    return DataError(what, where=split.where(split.rows[0]), fix=fix)


def _value(row: RawRow, column: str, data: DataSource) -> Any:
    return row.values.get(data.columns.get(column, column))


def rows_of(split: Split, task: Task, data: DataSource, columns: Sequence[str]) -> list[Row]:
    """The rows of a split under the task's columns; whole numbers as labels become strings.

    Raises:
        DataError: The first row that is not as the task needs it.
    """
    rows: list[Row] = []
    kind: type | None = None
    for raw in split.rows:
        row: Row = {column: _value(raw, column, data) for column in columns}
        for column in task.optional_columns:
            if (_value(raw, column, data) is not None) != (column in columns):
                has, others = ("has no", "have one") if column in columns else ("has a", "have none")
                what = f"{raw.id} {has} {column}, and the rows before it {others}"
                fix = f"give {column} in every row of every split, or in none"
                raise DataError(what, where=split.where(raw), fix=fix)
        wrong = task.check_row({column: value for column, value in row.items() if value is not None})
        if wrong:
            what = f"{raw.id}: {wrong}"
            fix = "correct the row or leave it out; if another column is meant, name it in data.columns"
            raise DataError(what, where=split.where(raw), fix=fix)
        _check_text(raw, row, split)
        if LABEL in row:
            kind = kind or type(row[LABEL])
            if type(row[LABEL]) is not kind:
                found, above = type(row[LABEL]).__name__, kind.__name__
                what = f"{raw.id} has the label {row[LABEL]!r}, which is {found} where the rows above have {above}"
                fix = "write all labels as strings, or all as whole numbers"
                raise DataError(what, where=split.where(raw), fix=fix)
            row[LABEL] = str(row[LABEL])
        row["id"] = raw.id
        rows.append(row)
    return rows


def _check_text(raw: RawRow, row: Row, split: Split) -> None:
    """JSON can write half a surrogate pair, which is no character and cannot be stored as UTF-8."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        half = isinstance(error, UnicodeEncodeError)
        fault = "half a surrogate pair (\\ud800 to \\udfff), which is not UTF-8" if half else str(error)
        what = f"{raw.id} holds {fault}"
        raise DataError(what, where=split.where(raw), fix="correct the row or leave it out") from None


def keep_columns(split: Split, rows: Sequence[Row], data: DataSource) -> None:
    """Add to the rows of a split what ``data.keep`` names, as the data has it.

    Raises:
        DataError: A row lacks such a column, or it holds no single value.
    """
    for raw, row in zip(split.rows, rows, strict=True):
        for column in data.keep:
            if column in row:
                continue
            value = raw.values.get(column)
            if not isinstance(value, str | int | float):
                holds = "nothing" if value is None else f"a {type(value).__name__}"
                what = f"{raw.id} holds {holds} in the column {column!r}, which gate.slices.by or gate.unit names"
                others = listed(list(raw.values))
                fix = f"give every evaluation row one value there, or name one of {others}; slices may be by class"
                raise DataError(what, where=split.where(raw), fix=fix)
            row[column] = value
            _check_text(raw, row, split)


def labels_of(train: Iterable[str]) -> list[str]:
    """All labels of the training rows in the order of the model's outputs: whole numbers by size, else by name."""
    found = set(train)
    whole = all(_WHOLE.fullmatch(label) for label in found)
    return sorted(found, key=lambda label: (int(label) if whole else 0, label))


def check_labels(split: Split, rows: Sequence[Row], task: Task, labels: Sequence[str]) -> None:
    """Check that a split's labels are known and more than one.

    Raises:
        DataError: A label does not occur in the training rows, or all rows have the same.
    """
    known = set(labels)
    counts: Counter[str] = Counter()
    for raw, row in zip(split.rows, rows, strict=True):
        label = task.label_of(row)
        if label is None:
            return
        counts[label] += 1
        if label not in known:
            near = get_close_matches(label, labels, n=1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            what = f"{raw.id} has the label {label!r}, which no training row has{hint}"
            raise DataError(what, where=split.where(raw), fix="correct the label, or add training rows that have it")
    if len(counts) < 2:
        what = f"all {len(rows)} rows of the split {split.name!r} have the label {next(iter(counts))!r}"
        raise DataError(what, where=f"{split.folder}/{split.source}", fix="give rows of two classes or more")


def text_key(task: Task, row: Row) -> str:
    """What makes two rows duplicates: their text, white space and case aside."""
    return " ".join(task.text_of(row).split()).casefold()


def duplicates(task: Task, rows: Sequence[Row], others: Iterable[Row]) -> tuple[list[str], int]:
    """Rows whose text stands among ``others`` too.

    Returns:
        Their ids, and for how many of them the other row has another label.
    """
    theirs: dict[str, set[str | None]] = {}
    for row in others:
        theirs.setdefault(text_key(task, row), set()).add(task.label_of(row))
    found, conflicting = [], 0
    for row in rows:
        labels = theirs.get(text_key(task, row))
        if labels is not None:
            found.append(str(row["id"]))
            conflicting += task.label_of(row) not in labels
    return found, conflicting
