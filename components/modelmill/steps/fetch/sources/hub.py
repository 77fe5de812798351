"""``hf://ORG/NAME@REVISION``: a repository of the Hugging Face Hub, through huggingface_hub.

The client reads ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, timeouts and the token (``HF_TOKEN``) from the environment; a
recipe never holds a token. Of a repository only files that are chosen are downloaded, and each is held against the
digest that the commit's tree lists for it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import tqdm

from modelmill.core.errors import SourceError
from modelmill.core.manifest import CHUNK, sha256_of
from modelmill.core.progress import Bar, Progress
from modelmill.steps.fetch.sources.base import Choose, Fetched, Purpose, check_pin, destination

ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.5
TIMEOUT_SECONDS = 20.0
STAGING = ".hub"
"""Where the client keeps its own records beside a download."""
COMMIT = re.compile(r"[0-9a-f]{40}")
_REFERENCE = re.compile(
    r"(?P<datasets>datasets/)?(?P<org>[A-Za-z0-9][\w.-]*)/(?P<name>[A-Za-z0-9][\w.-]*)"
    r"(?:@(?P<revision>refs/[\w.-]+/[\w.-]+|[^/@]+))?(?:/(?P<folder>[^@]+))?"
)
_FAULTS = (OSError, httpx2.HTTPError, ValueError, KeyError)
"""What the client raises: its own errors are OSErrors and ValueErrors, an endpoint that is no Hub gives the rest."""
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})

T = TypeVar("T")


class Repository:
    """A folder of a repository at a revision; its pin is the commit."""

    def __init__(self, repository: str, revision: str, folder: str, purpose: Purpose) -> None:
        self._repository, self._revision, self._folder, self._purpose = repository, revision, folder, purpose
        self._type = "dataset" if purpose is Purpose.DATA else "model"
        self._where = f"hf://{repository}@{revision}" + (f"/{folder}" if folder else "")
        self._api = HfApi()

    def pin(self, choose: Choose) -> str:
        """The commit that the revision names now; a whole commit needs no request."""
        if COMMIT.fullmatch(self._revision):
            return self._revision
        info = self._ask(
            lambda: self._api.repo_info(
                self._repository, revision=self._revision, repo_type=self._type, timeout=TIMEOUT_SECONDS
            ),
            attempts=ATTEMPTS,
        )
        if not info.sha or not COMMIT.fullmatch(info.sha):
            what = f"the Hub gave no commit for the revision {self._revision!r}"
            raise SourceError(what, where=self._where, fix="check that HF_ENDPOINT is a Hugging Face Hub")
        return str(info.sha)

    def fetch(self, choose: Choose, pin: str | None, directory: Path, progress: Progress) -> list[Fetched]:
        """Download what ``choose`` picks of the commit ``pin``."""
        commit = pin or self.pin(choose)
        if COMMIT.fullmatch(self._revision):
            check_pin(self._revision, pin, self._where)
        listed = self._list(commit)
        chosen = list(choose(sorted(listed)))
        fetched = []
        with progress.bar(f"download {self._purpose}", sum(listed[name].size for name in chosen), "bytes") as bar:
            for name in chosen:
                target = destination(directory, name, self._purpose)
                self._download(listed[name].path, commit, directory / STAGING, target, bar)
                fetched.append(Fetched(name, target, f"{self._where}/{name}", sha256_of(target), target.stat().st_size))
                self._check(listed[name], fetched[-1])
        shutil.rmtree(directory / STAGING)
        return fetched

    def _list(self, commit: str) -> dict[str, RepoFile]:
        tree = self._ask(
            lambda: list(
                self._api.list_repo_tree(self._repository, self._folder or None, revision=commit, repo_type=self._type)
            )
        )
        prefix = f"{self._folder}/" if self._folder else ""
        return {entry.path.removeprefix(prefix): entry for entry in tree if isinstance(entry, RepoFile)}

    def _download(self, path: str, commit: str, staging: Path, target: Path, bar: Bar) -> None:
        downloaded = self._ask(
            lambda: self._api.hf_hub_download(
                self._repository,
                path,
                repo_type=self._type,
                revision=commit,
                local_dir=staging,
                tqdm_class=_bar_class(bar),
            )
        )
        Path(downloaded).replace(target)

    def _check(self, listed: RepoFile, file: Fetched) -> None:
        """Hold the bytes against the tree: a large file's sha256, a small one's git blob id."""
        if listed.lfs is not None:
            same = file.sha256 == listed.lfs.sha256
        else:
            same = git_blob_id(file.path, file.size) == listed.blob_id
        if not same:
            what = f"{file.name} has other bytes than its commit lists"
            raise SourceError(what, where=file.where, fix="run again; if it stays, do not use this endpoint")

    def _ask(self, request: Callable[[], T], attempts: int = 1) -> T:
        """Make a request, again after a pause where the Hub is away or busy.

        The client retries listings and downloads itself, and asks for a repository's info only once.

        Raises:
            InputError: There is no such repository, revision or folder, or it is not open to this user.
            SourceError: The Hub stayed away.
        """
        wait = FIRST_WAIT_SECONDS
        while True:
            attempts -= 1
            try:
                return request()
            except _FAULTS as error:
                busy = _status(error) in _RETRIED or isinstance(error, httpx2.TransportError)
                if attempts == 0 or not busy:
                    raise self._translated(error) from None
            time.sleep(wait)
            wait *= 2

    def _translated(self, error: Exception) -> Exception:
        wrong, field, name = self._purpose.error, self._purpose.field, self._repository
        if isinstance(error, GatedRepoError):
            what = f"{name} is gated: its owners let in only those who accepted its terms"
            return wrong(what, where=field, fix="accept the terms on its page, then set HF_TOKEN to your token")
        if isinstance(error, RepositoryNotFoundError) or _status(error) in (401, 403):
            what = f"the Hub has no {self._type} {name} that this run may see"
            return wrong(what, where=field, fix="correct ORG/NAME, or set HF_TOKEN if it is private")
        if isinstance(error, RevisionNotFoundError):
            what = f"{name} has no revision {self._revision!r}"
            return wrong(what, where=field, fix="name a branch, a tag or a commit that it has")
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            what = f"{name} has no folder or file {self._folder!r} at {self._revision}"
            return wrong(what, where=field, fix="correct the folder behind the revision")
        if isinstance(error, HFValidationError):
            what = f"{name!r} is no repository name: {error}"
            return wrong(what, where=field, fix="write hf://ORG/NAME@REVISION")
        if isinstance(error, OfflineModeIsEnabled) or isinstance(error.__cause__, OfflineModeIsEnabled):
            what = "the Hub may not be asked: HF_HUB_OFFLINE is set"
            return SourceError(
                what, where=self._where, fix="unset HF_HUB_OFFLINE, or use a file:, package: or s3:// source"
            )
        if isinstance(error, ValueError | KeyError):
            what = f"the endpoint does not answer as a Hub does: {type(error).__name__} {_first_line(error)}"
            return SourceError(what, where=self._where, fix="check that HF_ENDPOINT is a Hugging Face Hub")
        status = _status(error)
        said = f"it answered {status}" if status else _first_line(error)
        what = f"the Hub is away: {said}"
        return SourceError(what, where=self._where, fix="run again; check HF_ENDPOINT and the network if it stays away")


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
    return str(cause).strip().split("\n")[0]


def _bar_class(bar: Bar) -> type[Any]:
    """huggingface_hub reports to a tqdm class; this one reports to ``bar`` and draws nothing."""

    class Forwarding(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            bar.advance(n or 0)

    return Forwarding


def git_blob_id(path: Path, size: int) -> str:
    """The id git gives a file: sha1 over ``blob SIZE NUL`` and its bytes (git-hash-object)."""
    hasher = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def open_source(path: str, purpose: Purpose, mounts: Sequence[Path] | None) -> Repository:
    """The repository, revision and folder that a reference names.

    Raises:
        InputError: The reference is malformed.
    """
    match = _REFERENCE.fullmatch(path.rstrip("/"))
    folder = (match and match["folder"]) or ""
    if match is None or ".." in folder.split("/") or (match["datasets"] and purpose is Purpose.MODEL):
        what = f"hf://{path} names no {'data set' if purpose is Purpose.DATA else 'model'} of the Hub"
        raise purpose.error(
            what, where=purpose.field, fix="write hf://ORG/NAME@REVISION, a folder behind it if need be"
        )
    return Repository(f"{match['org']}/{match['name']}", match["revision"] or "main", folder, purpose)
