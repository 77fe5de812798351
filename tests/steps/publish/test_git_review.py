"""Reviewed promotions: a branch and a pull request, by the APIs of GitHub and GitLab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from git_promotions import COMPONENT, committed, published
from git_servers import TOKEN, USER, GitServer, commits, file_of, git
from modelmill.core.errors import GitError
from modelmill.core.local_store import LocalStore
from modelmill.steps.publish.git_credentials import Credentials
from modelmill.steps.publish.gitops import Outcome
from modelmill.steps.publish.gitops_settings import GitOps


def review_of(server: GitServer, provider: str, **changes: Any) -> GitOps:
    api = {"github": f"{server.address}/api/github", "gitlab": f"{server.address}/api/v4"}[provider]
    review = {"provider": provider, "api": api, "project": "org/overlays.git", **changes}
    return GitOps.model_validate({"remote": f"{server.address}/git/overlays.git", "review": review})


@pytest.mark.parametrize("provider", ["github", "gitlab"])
def test_a_reviewed_promotion_is_one_branch_and_one_pull_request(
    store: LocalStore, made: list[Path], repository: Path, server: GitServer, provider: str
) -> None:
    digest = published(store, made[0])["bundle"]
    settings = review_of(server, provider)
    server.failing, server.failing_at = 1, "/api/"
    for _ in range(2):
        done = committed(store, settings)
        assert done.outcome is Outcome.PROPOSED
    assert server.failing == 0
    [pull] = server.pulls
    assert done.pull_request == pull.get("html_url", pull.get("web_url"))
    assert pull["_base"] == "main"
    assert digest in str(pull["sent"])
    assert len(commits(repository)) == 1
    assert yaml.safe_load(file_of(repository, COMPONENT, pull["_head"]))["kind"] == "Component"
    # A person merges it.
    git(repository, "update-ref", "refs/heads/main", f"refs/heads/{pull['_head']}")
    assert committed(store, settings).outcome is Outcome.UNCHANGED


@pytest.mark.parametrize("provider", ["github", "gitlab"])
def test_a_pull_request_that_a_person_closed_is_not_opened_again(
    store: LocalStore, made: list[Path], server: GitServer, provider: str
) -> None:
    published(store, made[0])
    settings = review_of(server, provider)
    committed(store, settings)
    server.pulls[0]["state"] = "closed"
    done = committed(store, settings)
    assert done.outcome is Outcome.HELD
    assert done.words.endswith("is closed")
    assert len(server.pulls) == 1


@pytest.mark.parametrize("provider", ["github", "gitlab"])
@pytest.mark.parametrize(
    ("changes", "token", "told"),
    [
        ({"project": "org/other"}, TOKEN, r"refuses \(404\)"),
        ({}, "wrong-api-token", r"refuses \(401\): Bad cred.* \*\*\*"),
    ],
)
def test_an_api_that_refuses_is_named_without_the_token(
    store: LocalStore, made: list[Path], server: GitServer, provider: str, changes: Any, token: str, told: str
) -> None:
    published(store, made[0])
    with pytest.raises(GitError, match=told) as caught:
        committed(store, review_of(server, provider, **changes), Credentials(USER, TOKEN, api_token=token))
    assert token not in str(caught.value)


def test_only_the_channels_that_are_named_are_reviewed(store: LocalStore, made: list[Path], server: GitServer) -> None:
    published(store, made[0])
    assert committed(store, review_of(server, "github", channels=["production"])).outcome is Outcome.COMMITTED
    assert server.pulls == []
