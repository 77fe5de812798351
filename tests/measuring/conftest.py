"""The tiny classifier as model artifacts, read-only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny_artifacts import export_checkpoint, quantize_graph


@pytest.fixture(scope="session")
def exported(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_checkpoint(tiny_bert, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def quantized(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantize_graph(exported, tmp_path_factory.mktemp("quantized"))
