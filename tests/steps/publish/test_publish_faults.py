"""Publishing while something is wrong, as the command does it: what it says, how it ends, and what the next one finds.

Each fault is mended, and the same command finishes: nothing was lost.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from git_promotions import COMPONENT, published
from git_servers import commit_files, commits, file_of, git, hook, make_repository
from lane_artifacts import judge_lane, publish_lanes, publish_settings
from modelmill.cli import main as command
from modelmill.core import manifest, records, registry
from modelmill.core.keys import KEY_VARIABLE
from modelmill.core.local_store import LocalStore
from modelmill.core.progress import SilentProgress
from modelmill.runners import container
from modelmill.steps.publish import run as publish_run
from modelmill.steps.publish.contract import STEP
from modelmill.steps.publish.gitops_settings import GitOps
from signing_keys import make_keys
from small_disk import small_disk
from stored_things import make_record

CHANNEL = "registry/banking/channels/staging.json"
Mend = Callable[[], object]


@dataclass
class Release:
    """A store and a repository in which one bundle is promoted, and what a second one is made of.

    Attributes:
        folder: Holds both.
        inputs: Input port → target → digest.
        lane: The second bundle's lane.
        old: The bundle that the channel names.
        settings: The step's, beside those of a plausible recipe.
    """

    folder: Path
    inputs: dict[str, dict[str, str]]
    lane: dict[str, Path]
    old: str
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.folder / "store")

    @property
    def repository(self) -> Path:
        return self.folder / "overlays.git"

    def named(self) -> tuple[str, str]:
        """What the channel names, and what the branch names."""
        shown = registry.show_channel(self.store, "banking", "staging")
        assert shown is not None
        overlay = yaml.safe_load(file_of(self.repository, COMPONENT))
        return shown.bundle, overlay["commonAnnotations"]["modelmill.dev/bundle"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Release:
    """Read-only."""
    folder = tmp_path_factory.mktemp("release")
    store, remote = LocalStore(folder / "store"), make_repository(folder / "overlays.git")
    first, second = (judge_lane(folder / f"lane{seed}", tiny_bert, seed=seed) for seed in (0, 1))
    before = publish_lanes(folder / "before", {"cpu-int8": first})
    old = published(store, before, git=GitOps(remote=str(remote)))["bundle"]
    inputs = {}
    for port, name in (("models", "model"), ("choices", "choice"), ("verdicts", "verdict")):
        made = manifest.build(second[name], name)
        store.put_artifact(second[name], made, SilentProgress())
        inputs[port] = {"cpu-int8": made.digest}
    return Release(folder, inputs, second, old)


@pytest.fixture
def release(begun: Release, tmp_path: Path) -> Release:
    for part in ("store", "overlays.git"):
        shutil.copytree(begun.folder / part, tmp_path / "release" / part, symlinks=True)
    return Release(tmp_path / "release", begun.inputs, begun.lane, begun.old)


@pytest.fixture
def publish(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[int, str]]:
    """Runs the command: exit code and stderr."""

    def run() -> tuple[int, str]:
        given = publish_settings(git=GitOps(remote=str(release.repository)), **release.settings)
        (tmp_path / "settings.json").write_text(given.model_dump_json(), "utf-8")
        words = ["step", "publish", "--store", release.store.uri, "--settings", str(tmp_path / "settings.json")]
        for port, lanes in release.inputs.items():
            words += ["--input", f"{port}.cpu-int8={lanes['cpu-int8']}"]
        monkeypatch.setattr(sys, "argv", ["modelmill", *words])
        with pytest.raises(SystemExit) as caught:
            command.main()
        return int(caught.value.code or 0), capsys.readouterr().err

    return run


def _git_is_away(release: Release, patch: pytest.MonkeyPatch) -> Mend:
    release.repository.rename(release.folder / "away.git")
    return lambda: (release.folder / "away.git").rename(release.repository)


def _git_declines(release: Release, patch: pytest.MonkeyPatch) -> Mend:
    hook(release.repository, "policy: commits need a ticket")
    return (release.repository / "hooks" / "pre-receive").unlink


def _git_is_protected(release: Release, patch: pytest.MonkeyPatch) -> Mend:
    hook(release.repository, "GH006: Protected branch update failed")
    return (release.repository / "hooks" / "pre-receive").unlink


def _newer_channel(release: Release, patch: pytest.MonkeyPatch) -> Mend:
    return _rewritten(release.store, CHANNEL)


def _newer_bundle(release: Release, patch: pytest.MonkeyPatch) -> Mend:
    digest = publish_lanes(release.folder / "same", {"cpu-int8": release.lane})
    bundle = json.loads((digest / "bundle.json").read_bytes())["digest"]
    artifact = manifest.build(digest, "bundle").digest
    registry.register_bundle(release.store, "banking", bundle, artifact, None)
    return _rewritten(release.store, f"registry/banking/bundles/{bundle.removeprefix('sha256:')}.json")


def _rewritten(store: LocalStore, name: str) -> Mend:
    """A document as a newer version might have written it."""
    before = store.read(name)
    assert before is not None
    newer = json.dumps({**json.loads(before.content), "format": 9, "since": "a later version"}).encode()
    assert store.replace(name, newer, before.version)

    def restore() -> None:
        found = store.read(name)
        assert found is not None
        assert found.content == newer, "what a newer version wrote is kept as it is"
        store.replace(name, before.content, found.version)

    return restore


def _key_is_none(release: Release, patch: pytest.MonkeyPatch) -> Mend:
    patch.setenv(KEY_VARIABLE, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LW9mLWEtdGVzdA==\n-----END PRIVATE KEY-----\n")
    return lambda: patch.delenv(KEY_VARIABLE)


def _key_is_missing(release: Release, patch: pytest.MonkeyPatch) -> Mend:
    release.settings["signer"] = "sha256:" + "0" * 64
    return release.settings.clear


def _planted(release: Release, patch: pytest.MonkeyPatch) -> Mend:
    key = make_keys(release.folder / "keys")
    patch.setenv(KEY_VARIABLE, str(key.private))
    settings = container.prepare(STEP, publish_settings(), release.inputs, SilentProgress()).settings
    step_key = container.prepare(STEP, settings, release.inputs, SilentProgress()).key
    directory = publish_lanes(release.folder / "planted", {"cpu-int8": release.lane})
    made = manifest.build(directory, "bundle")
    release.store.put_artifact(directory, made, SilentProgress())
    records.adopt_or_store(release.store, make_record(step_key, {"bundle": made.digest}, step="publish"))
    return lambda: release.store.delete(f"keys/{step_key.removeprefix('sha256:')}.json")


FAULTS: dict[str, tuple[Callable[[Release, pytest.MonkeyPatch], Mend], int, str]] = {
    "the Git remote is away": (_git_is_away, 5, "there is no such Git repository"),
    "the Git server declines": (_git_declines, 5, "declined the push to main: policy: commits need a ticket"),
    "the branch is protected": (_git_is_protected, 5, "the branch main is protected, and takes no push from here"),
    "a newer channel document": (_newer_channel, 5, "has format 9, written by a newer modelmill"),
    "a newer bundle document": (_newer_bundle, 5, "has format 9, written by a newer modelmill"),
    "a signing key that is none": (_key_is_none, 2, "MODELMILL_SIGNING_KEY"),
    "no signing key": (_key_is_missing, 2, "MODELMILL_SIGNING_KEY is not set here"),
    "an output planted under the step key": (_planted, 2, "the output under publish's step key is not let in"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_message_with_its_exit_code_and_mended_it_is_published(
    name: str, release: Release, publish: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, code, told = FAULTS[name]
    mend = plant(release, monkeypatch)
    found, said = publish()
    assert found == code, said
    assert told in said
    assert [line.startswith("error: ") for line in said.splitlines()].count(True) == 1
    assert "  fix:   " in said
    assert "Traceback" not in said
    assert "c2VjcmV0" not in said
    mend()
    old = release.old
    channel, branch = release.named()
    # With a push that is not taken the registry has moved, and Git follows with the next start; otherwise nothing has.
    moved = name in {"the Git server declines", "the branch is protected"}
    assert (channel != old, branch == old) == (moved, True)
    assert ("the registry's channel names" in said, "nothing was moved" in said) == (moved, "away" in name)
    found, said = publish()
    assert found == 0, said
    channel, branch = release.named()
    assert channel == branch != old


def test_a_branch_that_has_diverged_gets_the_promotion_on_what_it_is_now(
    release: Release, publish: Callable[[], tuple[int, str]]
) -> None:
    git(release.repository, "update-ref", "-d", "refs/heads/main")
    git(release.repository, "read-tree", "--empty")
    commit_files(release.repository, {"README.md": "begun anew\n"})
    found, said = publish()
    assert found == 0, said
    assert file_of(release.repository, "README.md") == "begun anew\n"
    assert len(commits(release.repository)) == 2
    assert release.named()[0] == release.named()[1] != release.old


def test_a_channel_that_names_a_deleted_bundle_goes_on_to_the_next_one(
    release: Release, publish: Callable[[], tuple[int, str]]
) -> None:
    record = registry.find_bundle(release.store, "banking", release.old)
    assert record is not None
    release.store.delete_artifact(record.artifact)
    found, said = publish()
    assert found == 0, said
    assert release.named()[0] != release.old


def test_a_report_that_cannot_be_rendered_does_not_keep_the_bundle_back(
    release: Release, publish: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> str:
        # A stand-in: no evidence is known that breaks the real renderer, or it would be mended.
        why = "no width"
        raise ZeroDivisionError(why)

    monkeypatch.setattr(publish_run, "render_run", fails)
    found, said = publish()
    assert found == 0, said
    assert "the report of banking could not be rendered, and nothing else is lost: ZeroDivisionError: no width" in said
    assert release.named()[0] != release.old


@pytest.mark.parametrize(
    ("full", "free_bytes", "told"),
    [
        ("the store", 64 << 10, "no space left in the store"),
        ("the folder that the step works in", 64 << 10, "there is no space left for the files that publish writes"),
        ("the folder that git works in", 4 << 10, "see that the disk is not full"),
    ],
)
def test_a_full_disk_is_said_and_with_room_the_same_command_publishes(
    full: str,
    free_bytes: int,
    told: str,
    release: Release,
    publish: Callable[[], tuple[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        if full == "the store":
            shutil.copytree(release.folder, disk.path / "release", symlinks=True)
            release.folder = disk.path / "release"
        else:
            if "git" in full:
                assert _bundle_is_assembled(release, publish)
            monkeypatch.setattr(tempfile, "tempdir", str(disk.path))
        disk.fill(free_bytes)
        found, said = publish()
        assert found == 5, said
        assert told in said
        assert [line.startswith("error: ") for line in said.splitlines()].count(True) == 1
        assert "  fix:   " in said
        assert "Traceback" not in said
        assert release.named()[1] == release.old
        disk.make_room()
        found, said = publish()
        assert found == 0, said
        assert release.named()[0] == release.named()[1] != release.old


def _bundle_is_assembled(release: Release, publish: Callable[[], tuple[int, str]]) -> bool:
    """Leave nothing to do but the commit."""
    hook(release.repository, "policy: not now")
    publish()
    (release.repository / "hooks" / "pre-receive").unlink()
    return release.named()[0] != release.old
