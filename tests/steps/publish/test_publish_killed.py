"""A publisher killed with SIGKILL at any point leaves channel and branch on the old bundle or on the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import killed_publisher
from git_promotions import published
from git_servers import make_repository
from lane_artifacts import judge_lane, publish_lanes
from modelmill.core import manifest
from modelmill.core.local_store import LocalStore
from modelmill.core.progress import SilentProgress
from modelmill.steps.publish.gitops_settings import GitOps

ASSEMBLING = 8


def named(overlay: str) -> str:
    """The bundle that a branch names."""
    return str(yaml.safe_load(overlay)["commonAnnotations"]["modelmill.dev/bundle"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_kill_at_any_point_leaves_the_old_bundle_or_the_new_one_and_the_next_start_finishes(
    tmp_path: Path, tiny_bert: Path
) -> None:
    folder = tmp_path / "publishing"
    store = LocalStore(folder / "store")
    remote = make_repository(folder / "overlays.git")
    first, second = (judge_lane(tmp_path / str(seed), tiny_bert, seed=seed) for seed in (0, 1))
    before = publish_lanes(tmp_path / "old", {"cpu-int8": first})
    old = published(store, before, git=GitOps(remote=str(remote)))["bundle"]
    inputs: dict[str, dict[str, str]] = {}
    for port, name in (("models", "model"), ("choices", "choice"), ("verdicts", "verdict")):
        made = manifest.build(second[name], name)
        store.put_artifact(second[name], made, SilentProgress())
        inputs[port] = {"cpu-int8": made.digest}
    paths = [str(Path(killed_publisher.__file__).parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, killed_publisher.__file__, str(folder), json.dumps(inputs), str(ASSEMBLING)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    whole, *kills = (json.loads(line) for line in done.stdout.splitlines())
    new = whole["channel"]
    assert new != old
    assert len(kills) >= 50
    for kill in kills:
        after, again = kill["after"], kill["again"]
        assert (after["channel"], after["moves"]) in ((old, 1), (new, 2)), kill
        assert after["whole"], kill
        assert (named(after["overlay"]), after["commits"]) in ((old, 2), (new, 3)), kill
        # The branch never says what the registry does not.
        assert named(after["overlay"]) == old or after["channel"] == new, kill
        assert again == whole | {"overlay": again["overlay"]}, kill
        assert named(again["overlay"]) == new, kill
    found = {(kill["after"]["channel"], named(kill["after"]["overlay"])) for kill in kills}
    assert found == {(old, old), (new, old), (new, new)}, "kills fell on both sides of both moves"
