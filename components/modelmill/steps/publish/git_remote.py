"""A Git remote by Git's own command line: fetch a branch, read its files, commit, push; no work tree.

Nothing of the repository is checked out: its files are read and written as objects, so that no link, hook or filter in
it does anything here. Credentials are given to Git by its environment, scoped to the remote's address, and lie in no
URL, argument or configuration file; keys lie in files of a folder that only this user reads and that goes with it.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from modelmill.core.errors import DeploymentError, GitError
from modelmill.steps.publish.gitops_settings import RELEASE_VARIABLES, GitOps

_TIMEOUT_SECONDS = 120
_MAX_BYTES = 1 << 20
_KEPT = {"GIT_EXEC_PATH", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"}
_FILE_MODES = {"100644", "100755"}
# What `git push --porcelain` says where another writer came first.
_LOST = re.compile(
    r"fetch first|non-fast-forward|stale info|needs force|cannot lock ref|failed to (update ref|lock)"
    r"|incorrect old value|reference already exists|remote ref updated"
)
_NO_BRANCH = re.compile(r"couldn't find remote ref|remote ref .* not found", re.IGNORECASE)
_UNAUTHORIZED = re.compile(
    r"authentication failed|could not read (username|password)|permission denied|error: 40[13]|access denied"
    r"|host key verification failed|terminal prompts disabled",
    re.IGNORECASE,
)
_PROTECTED = re.compile(r"protected branch|GH006|GH013", re.IGNORECASE)


@dataclass(frozen=True)
class Credentials:
    """What a remote and its API ask for, from the environment."""

    username: str = "modelmill"
    token: str | None = field(default=None, repr=False)
    ssh_key: str | None = field(default=None, repr=False)
    signing_key: str | None = field(default=None, repr=False)
    api_token: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Credentials:
        """The variables MODELMILL_GIT_…; one that is empty is as one that is not set."""

        def value(name: str) -> str | None:
            return environment.get(RELEASE_VARIABLES + name) or None

        token = value("TOKEN")
        return cls(
            username=value("USERNAME") or "modelmill",
            token=token,
            ssh_key=value("SSH_KEY"),
            signing_key=value("SIGNING_KEY"),
            api_token=value("API_TOKEN") or token,
        )

    def redacted(self, text: str) -> str:
        """``text`` without any of the secrets: servers repeat what they are sent."""
        for secret in (self.token, self.api_token, self._basic):
            if secret:
                text = text.replace(secret, "***")
        return text

    @property
    def _basic(self) -> str | None:
        if self.token is None:
            return None
        return base64.b64encode(f"{self.username}:{self.token}".encode()).decode()

    @property
    def header(self) -> str | None:
        """The header that authorizes requests over http."""
        return f"Authorization: Basic {self._basic}" if self.token else None


class AwayError(GitError):
    """The remote does not answer: another attempt may go better."""


class Pushed(Enum):
    """What became of a push."""

    LANDED = auto()
    THERE = auto()
    """Another writer made the very same commit, in the same second, and was first."""
    LOST = auto()
    """Another writer came first with another commit."""


class GitRemote:
    """A repository of objects beside a remote; made by `opened`."""

    def __init__(self, settings: GitOps, credentials: Credentials, folder: Path) -> None:
        self._settings, self._credentials = settings, credentials
        self._repository = folder / "repository"
        self._signing = _key_file(folder / "signing", credentials.signing_key)
        self._environment = _environment(settings, credentials, folder)

    def fetch(self, branch: str) -> str | None:
        """The commit that a branch of the remote names now, its files here; None where there is no such branch.

        Raises:
            AwayError: The remote does not answer.
            GitError: It refuses.
        """
        reference = "refs/modelmill/fetched"
        done = self._git(
            "fetch",
            "--quiet",
            "--no-tags",
            "--depth=1",
            "--",
            self._settings.remote,
            f"+refs/heads/{branch}:{reference}",
        )
        if done.returncode == 0:
            return self._told("rev-parse", reference)
        if _NO_BRANCH.search(done.stderr):
            return None
        raise self._problem(done.stderr)

    def read(self, commit: str, path: str) -> bytes | None:
        """A file of a commit, or None where there is none.

        Raises:
            DeploymentError: What lies there is no file, or larger than 1 MiB.
        """
        found = self._told("ls-tree", "-z", commit, "--", path)
        if not found:
            return None
        mode, kind, blob = found.split("\t")[0].split(" ")
        if kind != "blob" or mode not in _FILE_MODES:
            what = f"{path} is no file in the Git repository but a link or a folder"
            raise DeploymentError(what, where=self._settings.remote, fix="put a file there, or name another overlay")
        if int(self._told("cat-file", "-s", blob)) > _MAX_BYTES:
            what = f"{path} is larger than 1 MiB, which no overlay is"
            raise DeploymentError(what, where=self._settings.remote, fix="name the overlay's folder in git.overlay")
        return self._git("cat-file", "blob", blob).stdout_bytes

    def commit(self, parent: str, files: Mapping[str, bytes], message: str) -> str:
        """A commit on ``parent`` in which ``files`` (path → content) are as given, signed where there is a key.

        Raises:
            DeploymentError: The signing key is none, or a file's folder is a file or a link there.
        """
        self._told("read-tree", parent)
        for path, content in files.items():
            blob = self._told("hash-object", "-w", "--stdin", given=content)
            added = self._git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
            if added.returncode:
                what = f"{path} cannot be written in the Git repository: a folder of it is a file or a link there"
                raise DeploymentError(what, where=self._settings.remote, fix="name another folder in git.overlay")
        tree = self._told("write-tree")
        sign = ["-S"] if self._signing else []
        done = self._git("commit-tree", *sign, "-p", parent, "-F", "-", tree, given=message.encode())
        if done.returncode:
            what = f"the commit cannot be signed: {self._said(done.stderr)}"
            raise DeploymentError(
                what, where="MODELMILL_GIT_SIGNING_KEY", fix="give an OpenSSH private key without a passphrase"
            )
        return done.stdout.strip()

    def push(self, commit: str, branch: str, *, create: bool = False) -> Pushed:
        """Let a branch of the remote name a commit that follows what it names.

        Args:
            commit: What it is to name.
            branch: The branch.
            create: Whether it must not exist yet.

        Raises:
            AwayError: The remote does not answer; the push may have landed nevertheless.
            GitError: It refuses.
        """
        reference = f"refs/heads/{branch}"
        lease = [f"--force-with-lease={reference}:"] if create else []
        done = self._git("push", "--porcelain", *lease, "--", self._settings.remote, f"{commit}:{reference}")
        if done.returncode == 0:
            there = any(line.startswith("=") for line in done.stdout.splitlines())
            return Pushed.THERE if there else Pushed.LANDED
        refused = next((line for line in done.stdout.splitlines() if line.startswith("!")), None)
        if refused is None:
            raise self._problem(done.stderr)
        if _LOST.search(refused):
            return Pushed.LOST
        said = self._said(done.stderr) or refused.split("\t")[-1]
        if _PROTECTED.search(refused + done.stderr):
            what = f"the branch {branch} is protected, and takes no push from here: {said}"
            fix = "let git.review open pull requests, or allow this identity to push"
        else:
            what = f"the Git server declined the push to {branch}: {said}"
            fix = "what the server says above tells which of its rules to meet; then run again"
        raise GitError(what, where=self._settings.remote, fix=fix)

    def _problem(self, stderr: str) -> GitError:
        said = self._said(stderr)
        if _UNAUTHORIZED.search(stderr):
            what = f"the Git remote lets nobody in with these credentials: {said}"
            fix = "check MODELMILL_GIT_USERNAME and MODELMILL_GIT_TOKEN, or MODELMILL_GIT_SSH_KEY and git.known_hosts"
            return GitError(what, where=self._settings.remote, fix=fix)
        what = f"the Git remote does not answer: {said}"
        return AwayError(what, where=self._settings.remote, fix="run again when it answers; check git.remote")

    def _said(self, stderr: str) -> str:
        """What Git and the server said, on one line and without secrets."""
        lines = [line.removeprefix("remote:").strip() for line in self._credentials.redacted(stderr).splitlines()]
        words = [line for line in lines if line and not line.startswith(("hint:", "To "))]
        return "".join(sign if sign.isprintable() else " " for sign in "; ".join(words[:6]))[:600]

    def _told(self, *arguments: str, given: bytes = b"") -> str:
        """What a command on the local objects prints; that it fails is a bug, or a full disk.

        Raises:
            GitError: It failed.
        """
        done = self._git(*arguments, given=given)
        if done.returncode:
            what = f"git {arguments[0]} failed: {self._said(done.stderr)}"
            raise GitError(what, where=str(self._repository), fix="run again; see that the disk is not full")
        return done.stdout.rstrip("\n\0")

    def _git(self, *arguments: str, given: bytes = b"") -> _Done:
        signing = ["-c", f"user.signingkey={self._signing}"] if self._signing else []
        command = ["git", "--git-dir", str(self._repository), *signing, *arguments]
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, env=self._environment, check=False, timeout=_TIMEOUT_SECONDS
            )
        except FileNotFoundError:
            what = "there is no git command here, and the deployment has a Git repository for promotions"
            raise DeploymentError(what, where="git", fix="install git, or use the images of modelmill") from None
        except subprocess.TimeoutExpired:
            what = f"git {arguments[0]} did not end within {_TIMEOUT_SECONDS} s"
            raise AwayError(what, where=self._settings.remote, fix="run again when the remote answers") from None
        return _Done(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


@dataclass(frozen=True)
class _Done:
    """A command that ended."""

    returncode: int
    stdout_bytes: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        return self.stdout_bytes.decode(errors="replace")


@contextmanager
def opened(settings: GitOps, credentials: Credentials) -> Iterator[GitRemote]:
    """A remote, with an empty repository beside it that goes when the block ends.

    Raises:
        DeploymentError: There is no git here.
    """
    folder = Path(tempfile.mkdtemp(prefix="modelmill-git-"))
    try:
        remote = GitRemote(settings, credentials, folder)
        remote._told("init", "--quiet", "--bare")
        yield remote
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _key_file(path: Path, key: str | None) -> Path | None:
    """A key as a file that only this user reads: ssh takes no other."""
    if key is None:
        return None
    path.touch(mode=0o600)
    # An environment variable often loses the last line's end, without which ssh reads no key.
    path.write_text(key.replace("\r\n", "\n").rstrip("\n") + "\n", "utf-8")
    return path


def _environment(settings: GitOps, credentials: Credentials, folder: Path) -> dict[str, str]:
    """What Git runs in: nobody's configuration, no prompt, credentials for this remote alone."""
    config = {
        "core.hooksPath": os.devnull,
        "credential.helper": "",
        "gc.auto": "0",
        "gpg.format": "ssh",
        # A redirect would carry the credentials to another server.
        "http.followRedirects": "false",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "30",
    }
    if credentials.header and settings.remote.startswith("http"):
        config[f"http.{settings.remote}.extraHeader"] = credentials.header
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or not name.startswith(("GIT_", RELEASE_VARIABLES))
    }
    numbered: dict[str, str] = {}
    for index, (name, value) in enumerate(config.items()):
        numbered |= {f"GIT_CONFIG_KEY_{index}": name, f"GIT_CONFIG_VALUE_{index}": value}
    return {
        **kept,
        **numbered,
        "GIT_CONFIG_COUNT": str(len(config)),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ALLOW_PROTOCOL": "file:http:https:ssh",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "GIT_INDEX_FILE": str(folder / "index"),
        "GIT_AUTHOR_NAME": settings.author_name,
        "GIT_AUTHOR_EMAIL": settings.author_email,
        "GIT_COMMITTER_NAME": settings.author_name,
        "GIT_COMMITTER_EMAIL": settings.author_email,
        "GIT_SSH_COMMAND": _ssh(settings, credentials, folder),
        "LC_ALL": "C",
    }


def _ssh(settings: GitOps, credentials: Credentials, folder: Path) -> str:
    options = ["BatchMode=yes", "ConnectTimeout=20", "StrictHostKeyChecking=yes"]
    key = _key_file(folder / "identity", credentials.ssh_key)
    if key:
        options += [f"IdentityFile={key}", "IdentitiesOnly=yes"]
    if settings.known_hosts:
        hosts = folder / "known_hosts"
        hosts.write_text(settings.known_hosts.rstrip("\n") + "\n", "utf-8")
        options += [f"UserKnownHostsFile={hosts}"]
    return " ".join(["ssh", *(f"-o {option}" for option in options)])
