"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from podman import CPU, LIGHT, Podman, require_podman
from seaweed import Seaweed, seaweed
from small_models import make_checkpoint
from tiny_artifacts import export_checkpoint, quantize_graph

if "PYTEST_XDIST_WORKER" in os.environ:
    # A share of the processors for each worker and all that it starts: two that train on the same two wait for each
    # other at every step, five times as long as one alone takes on one processor.
    number, workers = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(processors[number::workers]) or {processors[number % len(processors)]})

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets that lie beside the project; a test that needs them is skipped where they are not."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real data sets are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """One real S3 server for the session."""
    with seaweed(tmp_path_factory.mktemp("seaweed") / "server") as server:
        yield server


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT classifier of three labels with a real WordPiece tokenizer. Read-only."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny-bert"), "bert", labels=["alpha", "beta", "gamma"])


@pytest.fixture(scope="session")
def exported(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny classifier as a float32 model artifact. Read-only."""
    return export_checkpoint(tiny_bert, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def quantized(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny classifier as an int8 model artifact. Read-only."""
    return quantize_graph(exported, tmp_path_factory.mktemp("quantized"))


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """podman, or a skip; the services that runners start read its settings, too."""
    found = require_podman(tmp_path_factory.mktemp("podman"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CONTAINERS_CONF", str(found.settings))
        yield found


@pytest.fixture(scope="session")
def cpu_image(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The CPU image of the working tree: built once, and again when its source has changed (minutes)."""
    return podman.image(CPU, tmp_path_factory.mktemp("cpu-image"))


@pytest.fixture(scope="session")
def light_image(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The light image of the working tree."""
    return podman.image(LIGHT, tmp_path_factory.mktemp("light-image"))
