"""Writers of one Git branch at once, and what a killed one leaves to the next."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import git_writers
from git_promotions import COMPONENT, published
from git_servers import commit_files, commits, file_of, git
from modelmill.core import registry
from modelmill.core.local_store import LocalStore
from modelmill.core.store import Store
from modelmill.core.stores import open_store
from modelmill.steps.publish.gitops_settings import GitOps
from seaweed import seaweed


def race(tmp_path: Path, store: Store, made: list[Path], remote: str, kind: str) -> list[list[Any]]:
    """What became of five writers' four promotions each: (move, outcome, words)."""
    names = [published(store, directory, channel="first")["bundle"] for directory in made]
    command = [sys.executable, git_writers.__file__, store.uri, remote, kind, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[Any]] = json.loads(done.stdout)
    return found


def test_five_writers_with_four_promotions_each_of_their_own_channels_all_land(
    tmp_path: Path, store: LocalStore, made: list[Path], repository: Path
) -> None:
    found = race(tmp_path, store, made, str(repository), "own")
    assert [outcome for _, outcome, _ in found] == ["committed"] * 20
    assert len(commits(repository)) == 21
    for writer in range(5):
        path = f"overlays/banking/lane-{writer}/promotion/kustomization.yaml"
        subjects = git(repository, "log", "--format=%s", "main", "--", path).splitlines()
        assert len(subjects) == 4
        assert "modelmill.dev/move: '4'" in file_of(repository, path)


def race_on_one_channel(tmp_path: Path, store: Store, made: list[Path], repository: Path) -> None:
    found = race(tmp_path, store, made, str(repository), "same")
    landed = sum(outcome == "committed" for _, outcome, _ in found)
    assert landed == len(commits(repository)) - 1
    assert len(found) == 20
    for _, outcome, words in found:
        assert outcome in ("committed", "unchanged", "newer")
        assert outcome != "newer" or "which is newer than move" in words
    moves = [
        int(line.split("'")[1])
        for line in git(repository, "log", "-p", "--reverse", "--format=", "main", "--", COMPONENT).splitlines()
        if line.startswith("+") and "modelmill.dev/move" in line
    ]
    assert moves == sorted(set(moves))
    shown = registry.show_channel(store, "banking", "staging")
    assert shown is not None
    assert moves[-1] == shown.arrived.number
    assert yaml.safe_load(file_of(repository, COMPONENT))["commonAnnotations"]["modelmill.dev/bundle"] == shown.bundle


def test_of_writers_on_one_channel_each_lands_or_is_told_that_a_newer_one_did(
    tmp_path: Path, store: LocalStore, made: list[Path], repository: Path
) -> None:
    race_on_one_channel(tmp_path, store, made, repository)


def test_a_writer_killed_between_the_registry_and_git_is_made_good_by_the_next_run(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    settings = GitOps(remote=str(repository))
    published(store, made[0], git=settings)
    # The registry moved, and the commit was never made.
    digest = published(store, made[1])["bundle"]
    facts = published(store, made[1], run="run-2", git=settings)
    assert (facts["moved"], facts["git"]["outcome"]) == (False, "committed")
    assert yaml.safe_load(file_of(repository, COMPONENT))["commonAnnotations"]["modelmill.dev/bundle"] == digest


def test_a_branch_whose_history_was_rewritten_gets_the_promotion_on_what_it_is_now(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    settings = GitOps(remote=str(repository))
    published(store, made[0], git=settings)
    git(repository, "update-ref", "-d", "refs/heads/main")
    git(repository, "read-tree", "--empty")
    commit_files(repository, {"README.md": "begun anew\n"})
    published(store, made[1], git=settings)
    assert len(commits(repository)) == 2
    assert file_of(repository, "README.md") == "begun anew\n"
    assert "modelmill.dev/move: '2'" in file_of(repository, COMPONENT)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_writers_on_one_channel_lose_none_on_s3(
    tmp_path: Path, made: list[Path], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with seaweed(tmp_path / "server") as server:
        for variable, value in server.environment(tmp_path / "cache").items():
            monkeypatch.setenv(variable, value)
        race_on_one_channel(tmp_path, open_store(f"s3://{server.bucket}/race"), made, repository)
