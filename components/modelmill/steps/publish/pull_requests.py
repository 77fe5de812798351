"""Pull requests by the REST APIs of GitHub and GitLab: find the one of a branch, open one.

Sources: docs.github.com/rest/pulls/pulls (list, create; version 2022-11-28), docs.gitlab.com/api/merge_requests (v4).
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modelmill.core.errors import GitError
from modelmill.steps.publish.git_credentials import Credentials
from modelmill.steps.publish.gitops_settings import Provider, Review

_TIMEOUT_SECONDS = 30
_ATTEMPTS = 3
_MAX_BYTES = 1 << 22
_EXISTS = {409, 422}


class State(StrEnum):
    """What became of a pull request."""

    OPEN = "open"
    MERGED = "merged"
    CLOSED = "closed"


@dataclass(frozen=True)
class PullRequest:
    """A pull request, or as GitLab says a merge request."""

    url: str
    state: State


class _Exists(Exception):
    """The server has one for the branch."""


class PullRequests:
    """The pull requests of one project."""

    def __init__(self, review: Review, credentials: Credentials, pause_seconds: float = 1.0) -> None:
        self._review, self._credentials, self._pause = review, credentials, pause_seconds
        self._github = review.provider is Provider.GITHUB

    def opened(self, branch: str, base: str, title: str, text: str) -> PullRequest:
        """The pull request of a branch, whatever became of it; a new one where there is none.

        Args:
            branch: The branch with the change.
            base: The branch that it is to go to.
            title: Its title.
            text: Its description.

        Raises:
            GitError: The API is away or refuses.
        """
        found = self._find(branch, base)
        if found is None:
            try:
                return self._create(branch, base, title, text)
            except _Exists as problem:
                # Another writer came first between the two requests.
                found = self._find(branch, base)
                if found is None:
                    what = f"the API of {self._review.provider.value} opens no pull request for {branch}: {problem}"
                    raise GitError(
                        what, where=self._review.api, fix="check git.branch and git.review.project"
                    ) from None
        return found

    def _find(self, branch: str, base: str) -> PullRequest | None:
        if self._github:
            owner = self._review.project.split("/")[0]
            found = self._call("GET", {"state": "all", "head": f"{owner}:{branch}", "base": base}, None)
        else:
            found = self._call("GET", {"state": "all", "source_branch": branch, "target_branch": base}, None)
        # The newest first, by both APIs.
        return self._read(found[0]) if isinstance(found, list) and found else None

    def _create(self, branch: str, base: str, title: str, text: str) -> PullRequest:
        if self._github:
            return self._read(self._call("POST", {}, {"title": title, "head": branch, "base": base, "body": text}))
        sent = {"title": title, "source_branch": branch, "target_branch": base, "description": text}
        return self._read(self._call("POST", {}, {**sent, "remove_source_branch": True}))

    def _read(self, document: Any) -> PullRequest:
        try:
            url = str(document["html_url" if self._github else "web_url"])
            state = str(document["state"])
            merged = bool(document.get("merged_at")) if self._github else state == "merged"
        except (KeyError, TypeError, AttributeError):
            what = f"what answers at the address is no API of {self._review.provider.value}"
            raise GitError(what, where=self._review.api, fix="check git.review.api and git.review.provider") from None
        is_open = state in ("open", "opened")
        return PullRequest(url, State.MERGED if merged else State.OPEN if is_open else State.CLOSED)

    def _call(self, method: str, query: Mapping[str, str], body: Mapping[str, Any] | None) -> Any:
        """One request, tried again where the server is away.

        Raises:
            GitError: The server is away or refuses.
            _Exists: It says that there is one already.
        """
        request = self._request(method, query, body)
        for attempt in range(_ATTEMPTS):
            try:
                with _opener().open(request, timeout=_TIMEOUT_SECONDS) as answer:
                    return json.loads(answer.read(_MAX_BYTES))
            except urllib.error.HTTPError as problem:
                said = self._said(problem)
                if method == "POST" and problem.code in _EXISTS:
                    raise _Exists(said) from None
                if problem.code < 500 and problem.code != 429:
                    raise self._refused(problem.code, said) from None
                why = f"{problem.code} {said}"
            except ValueError:
                raise self._refused(200, "the answer is no JSON") from None
            except OSError as problem:
                why = str(getattr(problem, "reason", problem))
            if attempt + 1 < _ATTEMPTS:
                time.sleep(self._pause * 2**attempt)
        what = f"the API of pull requests does not answer: {self._credentials.redacted(why)}"
        raise GitError(what, where=self._review.api, fix="run again when it does; check git.review.api")

    def _request(self, method: str, query: Mapping[str, str], body: Mapping[str, Any] | None) -> urllib.request.Request:
        review, token = self._review, self._credentials.api_token
        if self._github:
            address = f"{review.api.rstrip('/')}/repos/{review.project}/pulls"
            headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
            headers |= {"Authorization": f"Bearer {token}"} if token else {}
        else:
            project = urllib.parse.quote(review.project, safe="")
            address = f"{review.api.rstrip('/')}/projects/{project}/merge_requests"
            headers = {"PRIVATE-TOKEN": token} if token else {}
        address += f"?{urllib.parse.urlencode(query)}" if query else ""
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(
            address, data, {**headers, "Content-Type": "application/json", "User-Agent": "modelmill"}, method=method
        )

    def _said(self, problem: urllib.error.HTTPError) -> str:
        try:
            document = json.loads(problem.read(_MAX_BYTES))
        except (ValueError, OSError):
            return problem.reason
        told = document.get("message", document) if isinstance(document, dict) else document
        details = document.get("errors") if isinstance(document, dict) else None
        return self._credentials.redacted(f"{told}{f' {details}' if details else ''}")[:300]

    def _refused(self, code: int, said: str) -> GitError:
        what = f"the API of pull requests refuses ({code}): {said}"
        fix = "check git.review.api and git.review.project, and that MODELMILL_GIT_API_TOKEN may open pull requests"
        return GitError(what, where=self._review.api, fix=fix)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would carry the token to another server."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect)
