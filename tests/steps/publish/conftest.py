"""Judged lanes and a published bundle, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from git_servers import GitServer, git_server, make_repository
from lane_artifacts import judge_lane, publish_lanes, publish_two
from modelmill.core.local_store import LocalStore


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, dict[str, Path]]:
    """Two passed lanes with different models, and one that failed. Read-only."""
    work = tmp_path_factory.mktemp("judged")
    return {
        "cpu-int8": judge_lane(work / "int8", tiny_bert, "cpu-int8"),
        "cpu-float": judge_lane(work / "float", tiny_bert, "cpu-float", seed=1, external=True),
        "cpu-bad": judge_lane(work / "bad", tiny_bert, "cpu-bad", wrong=list(range(100))),
    }


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, judged: dict[str, dict[str, Path]]) -> Path:
    """A bundle of two passed lanes; a third was refused. Read-only."""
    return publish_lanes(tmp_path_factory.mktemp("bundle") / "b", judged)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> list[Path]:
    """Two bundles of one model. Read-only."""
    return publish_two(tmp_path_factory.mktemp("bundles"), tiny_bert)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "git" / "overlays.git")


@pytest.fixture
def server(repository: Path) -> Iterator[GitServer]:
    with git_server(repository.parent) as found:
        yield found
