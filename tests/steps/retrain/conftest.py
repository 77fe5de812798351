"""A model, and one processor, for the tests of retrain."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from small_models import make_checkpoint

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT classifier whose classes have no names of their own. Read-only."""
    return make_checkpoint(tmp_path_factory.mktemp("learner"), "bert", labels=["LABEL_0", "LABEL_1"])


@pytest.fixture
def one_processor() -> Iterator[None]:
    """Pin this process to one of its processors, so that training uses one thread.

    Two threads wait for each other after every operation: beside other work a tiny model takes a second a step on
    two and hundredths on one.
    """
    allowed = os.sched_getaffinity(0)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(allowed)[worker % len(allowed)]})
    yield
    os.sched_setaffinity(0, allowed)
