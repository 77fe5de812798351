"""Readers by name; a reader's module is loaded when a recipe uses it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from modelmill.steps.fetch.contract import DataSource
from modelmill.steps.fetch.readers.raw import Split
from modelmill.steps.fetch.selection import BOTOCORE_OPERATIONS, FILES
from modelmill.steps.fetch.sources.base import Fetched

MODULES = {
    FILES: "modelmill.steps.fetch.readers.files",
    BOTOCORE_OPERATIONS: "modelmill.steps.fetch.readers.botocore_operations",
}


class Read(Protocol):
    """The one function of a reader's module that run calls."""

    def __call__(
        self, files: Sequence[Fetched], splits: Sequence[str], data: DataSource, workspace: Path
    ) -> Mapping[str, Split]:
        """Split → its rows.

        Args:
            files: What was chosen and copied.
            splits: The splits that the recipe reads.
            data: The recipe's section; a reader uses its seed.
            workspace: A directory for what is decompressed on the way.

        Raises:
            DataError: A file is not what its name says.
        """
        ...


def reader_of(name: str) -> Read:
    """Load a reader, whose name `selection.choose_data` has checked."""
    return cast("Read", importlib.import_module(MODULES[name]).read)
