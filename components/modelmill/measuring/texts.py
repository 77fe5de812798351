"""Texts to time: rows of a data set, drawn and written for the processes that time them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelmill.core.rows import Row
from modelmill.measuring.timing_asks import TextsWork


def choose_rows(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """``count`` rows drawn without replacement, in their order; all where there are fewer."""
    if len(rows) <= count:
        return list(rows)
    chosen = np.random.default_rng(seed).choice(len(rows), size=count, replace=False)
    return [rows[index] for index in np.sort(chosen)]


def write_texts(rows: Sequence[Row], folder: Path) -> Path:
    """A file of rows, one a line, below ``folder``."""
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def texts_works(rows: Sequence[Row], folder: Path) -> list[TextsWork]:
    """The asks for texts, single ones and then all in batches, of rows written below ``folder``; no rows, no asks."""
    if not rows:
        return []
    file = write_texts(rows, folder)
    return [TextsWork(rows=file, single=single) for single in (True, False)]


def read_texts(path: Path) -> list[Row]:
    """What `write_texts` wrote."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
