"""Judged lanes and a published bundle, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from lane_artifacts import judge_lane, publish_lanes


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
