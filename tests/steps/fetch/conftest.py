"""What the tests of fetch share: a small sound model, a small sound data set, and a run of the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from modelmill.core.contract import ports_of
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import Dataset, Row, read_dataset, read_rows
from modelmill.steps.fetch.contract import DataSource, Inputs, ModelSource, Outputs, Settings
from modelmill.steps.fetch.resolve import resolve
from modelmill.steps.fetch.run import run
from small_data import data_files, model_files, write_files


@dataclass(frozen=True)
class Fetch:
    """What a run of the step gave."""

    settings: Settings
    outputs: Outputs
    facts: dict[str, Any]

    def rows(self, role: str) -> list[Row]:
        """The rows of a role."""
        return list(read_rows(getattr(self.outputs, role)))

    def dataset(self, role: str) -> Dataset:
        """The dataset.json of a role."""
        return read_dataset(getattr(self.outputs, role))

    def bytes_of(self) -> dict[str, bytes]:
        """Every file of every output."""
        found = {}
        for port in ports_of(Outputs):
            folder = getattr(self.outputs, port.name)
            found.update({f"{port.name}/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*")})
        return found


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder in the layout of save_pretrained."""
    return write_files(tmp_path / "model", model_files())


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """Twenty training rows and ten to judge by, of two labels."""
    return write_files(tmp_path / "data", data_files())


@pytest.fixture
def fetch(model_folder: Path, data_folder: Path, tmp_path: Path) -> Callable[..., Fetch]:
    """Resolve and run; by default on the two folders above."""
    count = 0

    def call(
        *,
        model: str | None = None,
        data: str | None = None,
        sha256: dict[str, str] | None = None,
        mounts: list[str] | None = None,
        settings: Settings | None = None,
        **changes: Any,
    ) -> Fetch:
        nonlocal count
        count += 1
        outputs = Outputs(**{field.name: tmp_path / f"out{count}" / field.name for field in fields(Outputs)})
        for port in ports_of(Outputs):
            getattr(outputs, port.name).mkdir(parents=True)
        wanted = settings or Settings(
            task="text-classification",
            model=ModelSource(source=model or f"file:{model_folder}", sha256=sha256 or {}),
            data=DataSource(source=data or f"file:{data_folder}", **{"tune": 0.2, **changes}),
            mounts=mounts,
        )
        resolved = resolve(wanted, SilentProgress())
        report = run(Inputs(), outputs, resolved, SilentProgress())
        return Fetch(resolved, outputs, dict(report.facts))

    return call
