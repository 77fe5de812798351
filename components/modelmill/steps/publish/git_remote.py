"""A Git remote by Git's own command line: fetch a branch, read its files, commit, push; no work tree.

Nothing of the repository is checked out: its files are read and written as objects, so that no link, hook or filter in
it does anything here. Credentials are given to Git by its environment, scoped to the remote's address, and lie in no
URL, argument or configuration file; keys lie in files of a folder that only this user reads and that goes with it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelmill.core.errors import DeploymentError, GitError
from modelmill.steps.publish.git_credentials import Credentials, environment_of, key_file
from modelmill.steps.publish.gitops_settings import GitOps

_TIMEOUT_SECONDS = 120
_MAX_BYTES = 1 << 20
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
_MISSING = re.compile(
    r"repository .*not found|does not appear to be a git repository|not valid: is this a git repo|error: 404",
    re.IGNORECASE,
)
# gitformat: the hash that names objects is the repository's own, and both sides must have the same one.
_OTHER_FORMAT = re.compile(r"mismatched algorithms: client \w+; server (sha1|sha256)\b")
_PROTECTED = re.compile(r"protected branch|GH006|GH013", re.IGNORECASE)


class AwayError(GitError):
    """The remote does not answer: another attempt may go better."""


class GitRemote:
    """A repository of objects beside a remote; made by `opened`."""

    def __init__(self, settings: GitOps, credentials: Credentials, folder: Path) -> None:
        self._settings, self._credentials = settings, credentials
        self._repository = folder / "repository"
        self._signing = key_file(folder / "signing", credentials.signing_key)
        self._environment = environment_of(settings, credentials, folder)

    def begin(self, object_format: str = "sha1") -> None:
        """Make the repository anew, empty, its objects named by that hash."""
        shutil.rmtree(self._repository, ignore_errors=True)
        self._told("init", "--quiet", "--bare", f"--object-format={object_format}")

    def fetch(self, branch: str) -> str | None:
        """The commit that a branch of the remote names now, its files here; None where there is no such branch.

        Raises:
            AwayError: The remote does not answer.
            GitError: It refuses.
        """
        reference = "refs/modelmill/fetched"
        options = ("--quiet", "--no-tags", "--depth=1")
        wanted = ("--", self._settings.remote, f"+refs/heads/{branch}:{reference}")
        done = self._git("fetch", *options, *wanted)
        other = _OTHER_FORMAT.search(done.stderr) if done.returncode else None
        if other is not None:
            self.begin(other[1])
            done = self._git("fetch", *options, *wanted)
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

    def push(self, commit: str, branch: str, *, create: bool = False) -> bool:
        """Let a branch of the remote name a commit that follows what it names; False where another came first.

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
            return True
        refused = next((line for line in done.stdout.splitlines() if line.startswith("!")), None)
        if refused is None:
            raise self._problem(done.stderr)
        if _LOST.search(refused):
            return False
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
        if _MISSING.search(stderr):
            what = f"there is no such Git repository, or not for these credentials: {said}"
            return GitError(
                what, where=self._settings.remote, fix="check git.remote, and what the credentials may read"
            )
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
        remote.begin()
        yield remote
    finally:
        shutil.rmtree(folder, ignore_errors=True)
