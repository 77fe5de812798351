"""Registrations in a repository of the Hugging Face Hub, by its own client.

The branch ``_bundles`` has one commit for each bundle, tagged with its digest (``sha256-…``); a channel is a branch, so
that ``from_pretrained(NAME, revision="production")`` loads what production names. A branch moves by one commit, which
the Hub takes only on the one that was looked at; there is no moment at which it holds half of each.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from modelmill.core.bundle import BUNDLE_DOCUMENT
from modelmill.core.errors import DeploymentError, MirrorError, ModelmillError
from modelmill.steps.publish.mirror import MirrorCredentials, Registered
from modelmill.steps.publish.mirror_settings import HubMirror

try:
    import httpx2
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars
except ImportError:
    # The light image has no client of the Hub; `opened` says so.
    if not TYPE_CHECKING:
        HfApi = None

BUNDLES = "_bundles"
"""The branch with one commit a bundle; no channel's name begins so."""
ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.5
_RACES = 20
_OWN = frozenset({".gitattributes"})
"""The Hub's own file, which says what lies in its large storage."""
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_OVERTAKEN = frozenset({409, 412})
_TOKEN = "MODELMILL_MIRROR_HUB_TOKEN"

T = TypeVar("T")


def opened(settings: HubMirror, model: str, credentials: MirrorCredentials) -> HubRepository:
    """The repository of a model.

    Raises:
        DeploymentError: The Hub's client is not installed here, or there is no token to write with.
    """
    if HfApi is None:
        what = "the Hub's client, huggingface_hub, is not installed where publish runs"
        fix = "run it in an image with it (the cpu image has it), or: pip install huggingface_hub"
        raise DeploymentError(what, where="mirrors.hub", fix=fix)
    if credentials.hub_token is None:
        what = f"there is no token to write {settings.named(model)} with"
        fix = f"set {_TOKEN} (in a cluster by release_secrets) to a token that may write there"
        raise DeploymentError(what, where="mirrors.hub", fix=fix)
    return HubRepository(settings, model, credentials)


class _Overtaken(Exception):
    """Another writer came first."""


class HubRepository:
    """One model repository."""

    def __init__(self, settings: HubMirror, model: str, credentials: MirrorCredentials) -> None:
        self._settings, self._credentials = settings, credentials
        self._name = settings.named(model)
        self._api = HfApi(endpoint=settings.address.rstrip("/"), token=credentials.hub_token)
        # Progress is said by facts: the client's bars would break a log into pieces.
        disable_progress_bars()

    def put(self, bundle: Registered) -> str | None:
        """Commit a bundle's files and tag the commit with its digest, once."""

        def attempt() -> str | None:
            branches, tags = self._refs()
            if _tag(bundle.digest) in tags:
                return None
            if BUNDLES not in branches:
                self._ask(lambda: self._api.create_branch(self._name, branch=BUNDLES, exist_ok=True))
                branches, _ = self._refs()
            head = branches[BUNDLES]
            # A commit whose tag was never made, for the writer was killed: it is tagged now.
            there = self._digest_at(head) == bundle.digest
            commit = head if there else self._commit(bundle, BUNDLES, head, "registered")
            # Two writers of one bundle: the later tag is refused, and the bundle is there.
            self._ask(lambda: self._api.create_tag(self._name, tag=_tag(bundle.digest), revision=commit, exist_ok=True))
            return f"{self._name} has {bundle.digest} as the tag {_tag(bundle.digest)}"

        return self._raced(attempt)

    def point(self, channel: str, bundle: Registered) -> str | None:
        """Let the branch of a channel hold a bundle that is tagged."""
        branch = self._settings.branch(channel)
        if branch == "main" and channel != self._settings.main and self._settings.main is not None:
            what = f"the channel main has no branch: the branch main follows {self._settings.main}"
            raise DeploymentError(what, where="mirrors.hub.main", fix="write main: null, or main: main")

        def attempt() -> str | None:
            branches, tags = self._refs()
            head, commit = branches.get(branch), tags.get(_tag(bundle.digest))
            if head is not None and (head == commit or self._digest_at(head) == bundle.digest):
                return None
            if commit is None:
                # Its tag was taken away since: it is put there again.
                self.put(bundle)
                raise _Overtaken
            if head is None:
                self._ask(lambda: self._api.create_branch(self._name, branch=branch, revision=commit))
            else:
                self._commit(bundle, branch, head, channel)
            return f"the branch {branch} of {self._name} holds {bundle.digest}"

        return self._raced(attempt)

    def _raced(self, attempt: Callable[[], T]) -> T:
        for _ in range(_RACES):
            try:
                return attempt()
            except _Overtaken:
                continue
        what = f"others were first in {_RACES} attempts to commit to {self._name}"
        raise MirrorError(what, where=self._settings.address, fix="run again")

    def _refs(self) -> tuple[dict[str, str], dict[str, str]]:
        """Branches and tags, each by name with its commit."""
        found = self._ask(lambda: self._api.list_repo_refs(self._name))
        branches, tags = ({item.name: item.target_commit for item in kind} for kind in (found.branches, found.tags))
        return branches, tags

    def _digest_at(self, commit: str) -> str | None:
        """The bundle that a commit holds, or None."""
        there = self._ask(lambda: self._api.file_exists(self._name, BUNDLE_DOCUMENT, revision=commit))
        if not there:
            return None
        with tempfile.TemporaryDirectory(prefix="modelmill-hub-") as folder:
            path = self._ask(
                lambda: self._api.hf_hub_download(self._name, BUNDLE_DOCUMENT, revision=commit, local_dir=folder)
            )
            try:
                return str(json.loads(Path(path).read_bytes())["digest"])
            except (ValueError, KeyError, TypeError):
                return None

    def _commit(self, bundle: Registered, branch: str, parent: str, verb: str) -> str:
        """Make a branch hold a bundle's files, and no other.

        Raises:
            _Overtaken: The branch has moved on from ``parent``.
        """
        files = bundle.files
        there = self._ask(lambda: self._api.list_repo_files(self._name, revision=parent))
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, str(bundle.directory / name)) for name in files),
            *(CommitOperationDelete(name) for name in sorted(set(there) - set(files) - _OWN)),
        ]
        made = self._ask(
            lambda: self._api.create_commit(
                self._name,
                operations,
                commit_message=f"{verb}: {bundle.record.model} {bundle.digest[:19]}",
                commit_description=f"{bundle.digest}\nverdict {bundle.verdict}\nrun {bundle.record.run}",
                revision=branch,
                parent_commit=parent,
            )
        )
        return str(made.oid)

    def _ask(self, request: Callable[[], T]) -> T:
        """Make a request, again after a pause where the Hub is away or busy.

        Raises:
            DeploymentError: The address, the repository or the token is wrong.
            MirrorError: The Hub stayed away.
            _Overtaken: Another writer came first.
        """
        wait = FIRST_WAIT_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return request()
            except (OSError, httpx2.HTTPError, ValueError, KeyError, TypeError, RuntimeError) as error:
                status = _status(error)
                if status in _OVERTAKEN:
                    raise _Overtaken from None
                busy = status in _RETRIED or isinstance(_cause(error), httpx2.TransportError)
                if attempt == ATTEMPTS or not busy:
                    raise self._translated(error, status) from None
            time.sleep(wait)
            wait *= 2
        raise AssertionError

    def _translated(self, error: Exception, status: int | None) -> ModelmillError:
        where, name = self._settings.address, self._name
        said = self._credentials.redacted(str(_cause(error)).strip().split("\n")[0])[:300]
        if isinstance(error, OfflineModeIsEnabled) or isinstance(error.__cause__, OfflineModeIsEnabled):
            what = "the Hub may not be asked: HF_HUB_OFFLINE is set"
            return DeploymentError(what, where="mirrors.hub", fix="unset HF_HUB_OFFLINE where publish runs")
        if isinstance(error, RepositoryNotFoundError) or status == 401:
            what = f"the Hub has no model repository {name} that this token may write"
            fix = f"make it (hf repos create {name}), correct mirrors.hub.repository, or set {_TOKEN} to another token"
            return DeploymentError(what, where=where, fix=fix)
        if status == 403:
            what = f"the token may not write {name}: {said}"
            return DeploymentError(what, where=where, fix=f"set {_TOKEN} to a token that may")
        if status is not None and 400 <= status < 500 and status not in _RETRIED:
            what = f"the Hub refuses {name} ({status}): {said}"
            return DeploymentError(what, where=where, fix="mend what it names; check mirrors.hub.address")
        if isinstance(error, ValueError | KeyError | TypeError) and status is None:
            what = f"what answers at the address does not answer as the Hub does: {said}"
            return DeploymentError(what, where=where, fix="check mirrors.hub.address")
        what = f"the Hub is away: {f'it answered {status}' if status else said}"
        return MirrorError(what, where=where, fix="check mirrors.hub.address, or wait until it answers")


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def _cause(error: Exception) -> BaseException:
    """What the client's own wrapping of an upload's failure is about."""
    found: BaseException = error
    while found.__cause__ is not None:
        found = found.__cause__
    return found


def _status(error: Exception) -> int | None:
    response = getattr(_cause(error), "response", None) or getattr(error, "response", None)
    return None if response is None else int(response.status_code)
