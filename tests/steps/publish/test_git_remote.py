"""Git remotes by file, http and ssh: credentials, keys, refusals, and settings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from git_promotions import ALLOWED, COMPONENT, SILENT, committed, published
from git_servers import TOKEN, USER, GitServer, commits, file_of, git, hook, make_repository
from modelmill.core.documents import validate
from modelmill.core.errors import DeploymentError, GitError
from modelmill.core.local_store import LocalStore
from modelmill.runners import process
from modelmill.steps.publish.git_credentials import Credentials
from modelmill.steps.publish.gitops import Outcome, Patience, release
from modelmill.steps.publish.gitops_settings import GitOps
from ssh_git_server import address, ssh_git_server


def test_http_takes_credentials_that_stand_in_no_address_argument_or_file(
    store: LocalStore, made: list[Path], repository: Path, server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(store, made[0])
    settings = GitOps(remote=f"{server.address}/git/overlays.git")
    # What git is started with, and what lies on the disk while it runs.
    calls: list[tuple[list[str], list[str]]] = []
    run = subprocess.run

    def watched(command: list[str], **given: Any) -> Any:
        if command[0] == "git" and "--git-dir" in command:
            folder = Path(command[command.index("--git-dir") + 1]).parent
            texts = [p.read_bytes().decode(errors="replace") for p in folder.rglob("*") if p.is_file()]
            calls.append((list(command), texts))
        return run(command, **given)

    monkeypatch.setattr(subprocess, "run", watched)
    assert committed(store, settings).outcome is Outcome.COMMITTED
    assert file_of(repository, COMPONENT)
    assert len(calls) > 5
    secrets = (TOKEN, Credentials(USER, TOKEN).header or "")
    assert not [secret for secret in secrets if secret.split()[-1] in repr(calls)]
    assert not any("@" in line.split("\n")[0] for line in server.seen)


@pytest.mark.parametrize("credentials", [Credentials(), Credentials(USER, "wrong-token-of-a-test")])
def test_wrong_credentials_are_named_and_not_repeated(
    store: LocalStore, made: list[Path], server: GitServer, credentials: Credentials
) -> None:
    published(store, made[0])
    with pytest.raises(GitError, match="lets nobody in with these credentials") as caught:
        committed(store, GitOps(remote=f"{server.address}/git/overlays.git"), credentials)
    assert caught.value.exit_code == 5
    assert "MODELMILL_GIT_TOKEN" in str(caught.value)
    assert "wrong-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("error: GH006: Protected branch update failed for refs/heads/main.", "the branch main is protected"),
        ("policy: commits need a ticket", "the Git server declined the push to main: policy: commits need a ticket"),
    ],
)
def test_a_refusal_of_the_server_is_reported_as_such(
    store: LocalStore, made: list[Path], repository: Path, words: str, told: str
) -> None:
    published(store, made[0])
    hook(repository, words)
    with pytest.raises(GitError, match=told) as caught:
        committed(store, GitOps(remote=str(repository)))
    assert caught.value.exit_code == 5
    assert len(commits(repository)) == 1


def test_a_remote_that_is_away_is_asked_again_and_then_said(store: LocalStore, made: list[Path]) -> None:
    published(store, made[0])
    with pytest.raises(GitError, match="does not answer") as caught:
        committed(store, GitOps(remote="http://127.0.0.1:9/git/overlays.git"))
    assert caught.value.exit_code == 5


def test_a_server_that_is_away_for_a_moment_or_does_not_answer_a_push_gets_one_commit(
    store: LocalStore, made: list[Path], repository: Path, server: GitServer
) -> None:
    published(store, made[0])
    server.failing, server.silent = 1, 1
    settings = GitOps(remote=f"{server.address}/git/overlays.git")
    patience = Patience(away=4, away_seconds=0.01)
    done = release(store, settings, "banking", "staging", SILENT, ALLOWED, patience)
    assert done.outcome is Outcome.COMMITTED
    assert (server.failing, server.silent) == (0, 0)
    assert done.commit == git(repository, "rev-parse", "main").strip()
    assert len(commits(repository)) == 2


@pytest.mark.parametrize("kind", ["file", "http"])
def test_a_repository_that_is_not_there_is_named_at_once(
    store: LocalStore, made: list[Path], server: GitServer, tmp_path: Path, kind: str
) -> None:
    published(store, made[0])
    remote = str(tmp_path / "nothing.git") if kind == "file" else f"{server.address}/git/nothing.git"
    with pytest.raises(GitError, match="no such Git repository"):
        committed(store, GitOps(remote=remote))


def test_a_branch_that_is_not_there_is_named(store: LocalStore, made: list[Path], repository: Path) -> None:
    published(store, made[0])
    with pytest.raises(DeploymentError, match="has no branch release"):
        committed(store, GitOps(remote=str(repository), branch="release"))


@pytest.mark.parametrize("kind", ["file", "http"])
def test_a_repository_whose_objects_are_named_by_sha256_is_one_like_others(
    store: LocalStore, made: list[Path], server: GitServer, kind: str
) -> None:
    path = make_repository(server.root / "newer.git", object_format="sha256")
    settings = GitOps(remote=str(path) if kind == "file" else f"{server.address}/git/newer.git")
    for directory in made:
        published(store, directory)
        done = committed(store, settings)
        assert done.outcome is Outcome.COMMITTED
        assert done.commit == git(path, "rev-parse", "main").strip()
        assert len(str(done.commit)) == 64
    assert committed(store, settings).outcome is Outcome.UNCHANGED


@pytest.mark.parametrize("given", ["itself", "by its path"])
def test_commits_are_signed_by_the_key_of_the_environment(
    store: LocalStore, made: list[Path], repository: Path, tmp_path: Path, given: str
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "release", "-f", str(key)], check=True)
    published(store, made[0])
    # Without its last line's end, as variables have it.
    environment = {"MODELMILL_GIT_SIGNING_KEY": key.read_text().strip() if given == "itself" else str(key)}
    settings = GitOps(remote=str(repository), author_email="release@example.org")
    assert committed(store, settings, Credentials.from_environment(environment)).outcome is Outcome.COMMITTED
    signers = tmp_path / "signers"
    signers.write_text(f"release@example.org {key.with_suffix('.pub').read_text()}")
    options = ("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={signers}")
    assert git(repository, *options, "log", "-1", "--format=%G? %GS", "main").split() == ["G", "release@example.org"]


def test_a_signing_key_that_is_none_is_named_and_not_shown(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    published(store, made[0])
    with pytest.raises(DeploymentError, match="cannot be signed") as caught:
        committed(store, GitOps(remote=str(repository)), Credentials(signing_key="no key at all"))
    assert caught.value.where == "MODELMILL_GIT_SIGNING_KEY"
    assert "no key at all" not in str(caught.value)
    assert len(commits(repository)) == 1


@pytest.mark.parametrize("variable", ["MODELMILL_GIT_SIGNING_KEY", "MODELMILL_GIT_SSH_KEY"])
@pytest.mark.parametrize("kind", ["damaged", "absent", "public", "folder"])
def test_a_variable_with_neither_key_nor_path_says_what_to_give_and_shows_nothing_of_it(
    tmp_path: Path, variable: str, kind: str
) -> None:
    public = tmp_path / "key.pub"
    public.write_text("ssh-ed25519 AAAA release\n")
    given = {"damaged": "b3BlbnNzaC1r" * 40, "absent": str(tmp_path / "k"), "public": str(public), "folder": "/"}[kind]
    with pytest.raises(DeploymentError, match="holds no private key, nor the path") as caught:
        Credentials.from_environment({variable: given})
    assert caught.value.where == variable
    assert "-----BEGIN" in str(caught.value.fix)
    assert kind == "folder" or given not in str(caught.value)


def test_ssh_takes_the_key_of_the_environment_and_no_host_that_is_not_known(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    published(store, made[0])
    with ssh_git_server() as server:
        remote = address(server, repository)
        settings = GitOps(remote=remote, known_hosts=server.known_hosts)
        credentials = Credentials.from_environment({"MODELMILL_GIT_SSH_KEY": server.key.strip()})
        assert committed(store, settings, credentials).outcome is Outcome.COMMITTED
        assert len(commits(repository)) == 2
        with pytest.raises(GitError, match="lets nobody in"):
            committed(store, GitOps(remote=remote, known_hosts="other.example ssh-ed25519 AAAA"), credentials)
        with pytest.raises(GitError, match="lets nobody in"):
            committed(store, settings, Credentials(ssh_key="no key at all"))


NO_FOLDERS = [
    "",
    ".",
    "./{model}",
    "a/./b",
    "a//b",
    "/a",
    "a\\b",
    ".git/{model}",
    "a/.GIT",
    "{model.__class__}",
    "{model!r}",
    "{channel:>9}",
    "{model[0]}",
    "{{model}}",
    "{0}",
    "{",
    "a\nb",
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"remote": "https://user:pass@example.org/r.git"}, "credentials do not belong into the address"),
    ({"remote": "https://token@example.org/r.git"}, "credentials do not belong into the address"),
    ({"remote": "ext::sh -c id"}, "no http, https, ssh or file URL"),
    ({"remote": "--upload-pack=id"}, "no http, https, ssh or file URL"),
    ({"remote": "../here"}, "no http, https, ssh or file URL"),
    ({"remote": "/r", "branch": "-x"}, "cannot name a branch"),
    ({"remote": "/r", "branch": "a..b"}, "cannot name a branch"),
    ({"remote": "/r", "overlay": "../{model}"}, "no path inside the repository"),
    ({"remote": "/r", "overlay": "o/{name}"}, "no path inside the repository"),
    *(({"remote": "/r", "overlay": overlay}, "no path inside the repository") for overlay in NO_FOLDERS),
    ({"remote": "https://example.org/r.git?token=hunter2"}, "credentials go into MODELMILL_GIT_TOKEN"),
    ({"remote": "ssh://git@example.org/r.git?"}, "credentials go into MODELMILL_GIT_TOKEN"),
    ({"remote": "https://example.org/r.git#hunter2"}, "credentials go into MODELMILL_GIT_TOKEN"),
    *(
        (
            {"remote": "/r", "review": {"provider": "gitlab", "api": api, "project": "o/r"}},
            "set MODELMILL_GIT_API_TOKEN",
        )
        for api in ("https://u:hunter2@example.org/api", "https://example.org/api?private_token=hunter2", "example.org")
    ),
    ({"remote": "/r", "image": "serving:latest"}, "image"),
    ({"remote": "/r", "brunch": "x"}, "did you mean branch"),
]


@pytest.mark.parametrize(("document", "told"), BAD)
def test_wrong_settings_are_refused_by_field(document: dict[str, Any], told: str) -> None:
    with pytest.raises(DeploymentError, match=told) as caught:
        validate(GitOps, document, "deployment", DeploymentError)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "remote", ["https://example.org/r.git", "ssh://git@example.org:22/r", "git@example.org:o/r.git", "/folder?a#b"]
)
def test_usual_addresses_are_taken(remote: str) -> None:
    assert GitOps(remote=remote).remote == remote


@pytest.mark.parametrize("variable", ["MODELMILL_GIT_TOKEN", "MODELMILL_SIGNING_KEY", "MODELMILL_SIGNING_KEY_PASSWORD"])
def test_only_publish_is_started_with_the_keys_of_the_release(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, TOKEN)
    assert process.environment_of("publish")[variable] == TOKEN
    assert variable not in process.environment_of("fetch")


def test_nothing_is_left_on_the_disk(
    store: LocalStore, made: list[Path], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(store, made[0])
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setitem(os.environ, "GIT_DIR", "/nowhere")
    committed(store, GitOps(remote=str(repository)))
    assert list(folder.iterdir()) == []
