"""The channel commands as a person uses them, on a real bundle in a local store."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from git_servers import commits, file_of, hook, make_repository
from lane_artifacts import publish_settings, publish_two
from modelmill.cli import main as command
from modelmill.core import bundle as bundles
from modelmill.core import manifest, registry
from modelmill.core.contract import PortType
from modelmill.core.evidence import LaneEvidence, Verdict
from modelmill.core.local_store import LocalStore
from modelmill.core.manifest import FileEntry
from modelmill.core.progress import SilentProgress
from modelmill.steps.publish.promote import promote


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> list[Path]:
    """Two bundles of one model. Read-only."""
    return publish_two(tmp_path_factory.mktemp("bundles"), tiny_bert)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def put(store: LocalStore, directory: Path) -> str:
    found = manifest.build(directory, PortType.BUNDLE)
    store.put_artifact(directory, found, SilentProgress())
    return found.digest


def published(store: LocalStore, directory: Path) -> str:
    """Publish a bundle as a run does; its digest."""
    artifact = put(store, directory)
    outputs = {"bundle": (store.get_artifact(artifact, SilentProgress()), artifact)}
    return str(promote(store, outputs, publish_settings(), SilentProgress()).facts["bundle"])


def refused(at: Path, whole: Path) -> Path:
    """A bundle, consistent in itself, whose verdict is no pass: only a person who plants it can register it."""
    shutil.copytree(whole, at)
    document = bundles.read_bundle(at)
    [lane] = document.lanes.values()
    path = at / lane.verdict
    evidence = LaneEvidence.model_validate_json(path.read_bytes()).model_copy(update={"verdict": Verdict.FAIL})
    manifest.write_json(path, evidence.model_dump(mode="json"))
    entry = FileEntry(sha256=manifest.sha256_of(path), size=path.stat().st_size)
    bundles.write_bundle(at, document.model, document.lanes, document.files, {**document.evidence, lane.verdict: entry})
    return at


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, store: LocalStore, *words: str
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``modelmill channel …``."""
    monkeypatch.setattr(sys, "argv", ["modelmill", "channel", *words, "--store", store.uri])
    with pytest.raises(SystemExit) as caught:
        command.main()
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.fixture
def channel(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, store: LocalStore) -> Any:
    return lambda *words: call(capsys, monkeypatch, store, *words)


def test_a_rollback_is_one_command_and_the_next_run_is_held_back(
    store: LocalStore, made: list[Path], channel: Any
) -> None:
    first, second = (published(store, directory) for directory in made)
    code, out, _ = channel("rollback", "banking", "staging", "--reason", "errors at night", "--by", "ada")
    assert code == 0
    assert f"rolled back, it names {first}" in out
    assert "no run moves it until modelmill channel unpin banking staging" in out
    assert published(store, made[1]) == second
    code, out, _ = channel("show", "banking", "staging")
    assert code == 0
    assert "rolled back by ada (errors at night)" in out
    assert "pinned: by ada" in out
    code, out, _ = channel("history", "banking", "staging")
    assert f"held back {second[7:19]}" in out
    assert channel("unpin", "banking", "staging", "--by", "bob")[0] == 0
    published(store, made[1])
    code, out, _ = channel("show", "banking", "staging", "--json")
    found = json.loads(out)
    assert (code, found["digest"], found["pinned"], found["moves"]) == (0, second, None, 6)


def test_a_reference_is_one_command_and_says_what_it_is_for(store: LocalStore, made: list[Path], channel: Any) -> None:
    first, second = (published(store, directory) for directory in made)
    code, out, _ = channel("reference", "banking", "staging", first[7:19], "--by", "ada", "--reason", "audited")
    assert code == 0
    assert f"reference pinned, it names {second}" in out
    assert f"candidates are held against the reference {first}" in out
    assert f"reference: {first}" in channel("show", "banking", "staging")[1]
    assert f"reference pinned {first[7:19]}" in channel("history", "banking", "staging")[1]
    code, _, err = channel("reference", "banking", "staging", "ffffffff")
    assert code == 2
    assert "no registered bundle" in err
    code, _, err = channel("reference", "banking", "production", first)
    assert code == 2
    assert "nothing was promoted to the channel production" in err


def test_a_rollback_by_hand_goes_into_git_and_says_how_to_go_on_where_that_fails(
    store: LocalStore, made: list[Path], channel: Any, tmp_path: Path
) -> None:
    first, _ = (published(store, directory) for directory in made)
    repository = make_repository(tmp_path / "overlays.git")
    deployment = tmp_path / "deployment.yaml"
    deployment.write_text(json.dumps({"git": {"remote": str(repository)}}))
    hook(repository, "policy: no")
    code, _, err = channel("rollback", "banking", "staging", "--deployment", str(deployment))
    assert code == 5
    assert f"the registry's channel names {first} now, and Git does not" in " ".join(err.split())
    assert f"modelmill channel rollback banking staging --to {first}" in " ".join(err.split())
    (repository / "hooks" / "pre-receive").unlink()
    command = ("rollback", "banking", "staging", "--to", first, "--deployment", str(deployment), "--json")
    code, out, _ = channel(*command)
    done = json.loads(out)
    assert (code, done["changed"], done["digest"], done["git"]["outcome"]) == (0, False, first, "committed")
    assert first in file_of(repository, "overlays/banking/staging/promotion/kustomization.yaml")


@pytest.mark.parametrize(
    ("broken", "code", "told"),
    [
        ({"branch": "release"}, 2, "the Git repository has no branch release"),
        ({"overlay": "unlisted"}, 2, "does not list the component that promotions write"),
        ({"overlay": "garbled"}, 2, "in the Git repository is no YAML"),
        ({"overlay": "theirs"}, 2, "is what weather staging serves"),
        ({"overlay": "file"}, 2, "a folder of it is a file or a link there"),
        ({"key": "/nowhere"}, 2, "MODELMILL_GIT_SIGNING_KEY holds no private key"),
        ({"key": "-----BEGIN OPENSSH PRIVATE KEY-----"}, 2, "the commit cannot be signed"),
        ({"remote": "/nowhere.git"}, 5, "there is no such Git repository"),
    ],
)
def test_what_would_stop_git_stops_the_channel_too_and_again_does_not_go_back_twice(
    store: LocalStore,
    made: list[Path],
    channel: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: dict[str, str],
    code: int,
    told: str,
) -> None:
    first, second = (published(store, directory) for directory in made)
    files = {
        "unlisted/kustomization.yaml": "components: [other]\n",
        "garbled/kustomization.yaml": "{",
        "theirs/promotion/kustomization.yaml": "commonAnnotations: {modelmill.dev/model: weather}\n",
        "file": "a file\n",
    }
    repository = make_repository(tmp_path / "overlays.git", files)
    if "key" in broken:
        monkeypatch.setenv("MODELMILL_GIT_SIGNING_KEY", broken["key"])
    deployment = tmp_path / "deployment.yaml"
    settings = {name: value for name, value in broken.items() if name != "key"}
    deployment.write_text(json.dumps({"git": {"remote": str(repository), **settings}}))
    for verb in (["rollback"], ["rollback"], ["promote", first], ["rollback", "--to", first]):
        found, _, err = channel(verb[0], "banking", "staging", *verb[1:], "--deployment", str(deployment))
        said = " ".join(err.split())
        assert (found, "nothing was moved, neither the channel nor Git" in said) == (code, True), said
        assert told in said
        assert "fix:" in said
    now = registry.show_channel(store, "banking", "staging")
    assert now is not None
    assert (now.bundle, now.number) == (second, 2)
    assert len(commits(repository)) == 1


def test_a_rollback_from_the_first_bundle_says_that_there_is_nothing_before(
    store: LocalStore, made: list[Path], channel: Any
) -> None:
    published(store, made[0])
    code, _, err = channel("rollback", "banking", "staging")
    assert code == 2
    assert "named nothing before" in err


def test_a_promotion_by_hand_says_who_and_why(store: LocalStore, made: list[Path], channel: Any) -> None:
    digest = published(store, made[0])
    code, out, _ = channel("promote", "banking", "production", digest[7:19], "--by", "ada", "--reason", "go", "--json")
    assert code == 0
    moved = json.loads(out)["move"]
    assert (moved["kind"], moved["by"], moved["why"], moved["override"]) == ("promoted by hand", "ada", "go", False)
    code, out, _ = channel("promote", "banking", "production", digest)
    assert code == 0
    assert "nothing to do" in out


def test_who_and_why_are_one_printable_line(store: LocalStore, made: list[Path], channel: Any) -> None:
    digest = published(store, made[0])
    for option in ("--by", "--reason", "--override"):
        code, _, err = channel("promote", "banking", "production", digest, option, " \t")
        assert code == 2
        assert "is blank" in err
    assert registry.show_channel(store, "banking", "production") is None
    code, out, _ = channel("promote", "banking", "production", digest, "--reason", "red\x1b[31m\n\nEvil: x", "--json")
    assert code == 0
    assert json.loads(out)["move"]["why"] == "red\ufffd[31m Evil: x"


def test_an_artifact_names_its_bundle_by_its_first_digits(store: LocalStore, made: list[Path], channel: Any) -> None:
    published(store, made[0])
    artifact = put(store, made[0])
    code, out, _ = channel("promote", "banking", "production", artifact.removeprefix("sha256:")[:12], "--json")
    assert (code, json.loads(out)["move"]["artifact"]) == (0, artifact)


def test_a_bundle_that_is_not_registered_is_refused(store: LocalStore, made: list[Path], channel: Any) -> None:
    published(store, made[0])
    code, _, err = channel("promote", "banking", "staging", "0" * 64)
    assert code == 2
    assert "no registered bundle of banking" in err


def test_a_bundle_without_a_passing_verdict_needs_a_reason_that_is_recorded(
    store: LocalStore, made: list[Path], tmp_path: Path, channel: Any
) -> None:
    directory = refused(tmp_path / "refused", made[0])
    digest = bundles.read_bundle(directory).digest
    registry.register_bundle(store, "banking", digest, put(store, directory), None)
    code, _, err = channel("promote", "banking", "staging", digest)
    assert code == 2
    assert "no passing verdict: cpu-int8 says fail" in err
    assert "--override REASON" in err
    assert registry.show_channel(store, "banking", "staging") is None
    code, _, _ = channel("promote", "banking", "staging", digest, "--override", "the old one leaks", "--by", "ada")
    assert code == 0
    found = registry.show_channel(store, "banking", "staging")
    assert found is not None
    move = found.history[-1]
    assert (move.override, move.why, move.by) == (True, "the old one leaks", "ada")
    assert "the old one leaks (no passing verdict)" in channel("history", "banking", "staging")[1]


def test_no_reason_overrides_a_bundle_that_is_another(
    store: LocalStore, made: list[Path], tmp_path: Path, channel: Any
) -> None:
    digest = "sha256:" + "a" * 64
    registry.register_bundle(store, "banking", digest, put(store, made[0]), None)
    code, _, err = channel("promote", "banking", "staging", digest, "--override", "trust me")
    assert code == 2
    assert "tampered" in err


def test_a_channel_that_names_a_deleted_bundle_says_so_and_how_to_go_on(
    store: LocalStore, made: list[Path], channel: Any
) -> None:
    for directory in made:
        digest = published(store, directory)
    record = registry.find_bundle(store, "banking", digest)
    assert record is not None
    store.delete_artifact(record.artifact)
    code, out, err = channel("show", "banking", "staging", "--json")
    assert code == 5
    assert json.loads(out)["bundle"] is None
    assert "is gone from the store" in err
    assert "modelmill channel rollback banking staging" in err
    assert channel("rollback", "banking", "staging")[0] == 0
    assert channel("show", "banking", "staging")[0] == 0
