"""The rows artifact: ``rows.jsonl``, one row a line, and ``dataset.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from modelmill.core.contract import JSON, Closed
from modelmill.core.manifest import write_json

Row = dict[str, JSON]
"""Column → value, and ``id``: ``file:line`` of where the row was read, unique within an artifact."""


class Role(StrEnum):
    """What rows are for. Rows that choose the model never judge it."""

    TRAIN = "train"
    TUNE = "tune"
    CALIBRATE = "calibrate"
    EVALUATE = "evaluate"


class Dataset(Closed):
    """``dataset.json``."""

    format: int = 1
    task: str = Field(description="the task the rows are for")
    role: Role
    columns: list[str] = Field(description="the task's columns that the rows have, without id")
    labels: list[str] = Field(description="all labels of the training rows, in the order of the model's outputs")
    count: int = Field(ge=0, description="rows")
    facts: dict[str, JSON] = Field(default_factory=dict, description="what was found, such as duplicates across roles")

    def number(self, fact: str) -> int | None:
        """A fact that is a whole number, or None where it is not told."""
        value = self.facts.get(fact)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def write_rows(directory: Path, dataset: Dataset, rows: Iterable[Row]) -> None:
    """Write a rows artifact; ``dataset.count`` must be the number of rows."""
    with (directory / "rows.jsonl").open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
    write_json(directory / "dataset.json", dataset.model_dump(mode="json"))


def read_dataset(directory: Path) -> Dataset:
    """The artifact's ``dataset.json``."""
    return Dataset.model_validate_json((directory / "dataset.json").read_bytes())


def read_rows(directory: Path) -> Iterator[Row]:
    """The artifact's rows in order."""
    with (directory / "rows.jsonl").open(encoding="utf-8", newline="\n") as stream:
        for line in stream:
            yield json.loads(line)
