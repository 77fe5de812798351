"""Where promotions are committed: the Git repository of overlays. Light, and without a secret."""

from __future__ import annotations

import re
from enum import StrEnum
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from modelmill.core.contract import Closed

GIT_VARIABLES = "MODELMILL_GIT_"
"""What the variables with credentials begin with."""
_SCP = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9._-]+:[^:]+")
_CREDENTIALS = "^[A-Za-z]+://[^/?#]*:[^/?#]*@|^(http|https|file|HTTP|HTTPS|FILE)://[^/?#]*@|^[A-Za-z]+://[^?#]*[?#]"
"""A password, or a user where it is one that logs in by a password, before an address, or a query; for schemas."""
_NO_FOLDER = {"", ".", "..", ".git", "git~1"}
"""What no folder in a repository is called, in any case of its letters."""
_API = re.compile(r"^https?://[^@?#\s]+$")
_REF = re.compile(r"(?!.*(\.\.|//|\.lock(/|$)|/\.))[A-Za-z0-9_][A-Za-z0-9._/-]*(?<![./])")


class Provider(StrEnum):
    """Whose REST API opens pull requests."""

    GITHUB = "github"
    GITLAB = "gitlab"


class Review(Closed):
    """Promotions go on a branch of their own, with a pull request for a person to merge."""

    provider: Provider
    api: str = Field(
        description="https://api.github.com, or https://gitlab.example/api/v4; without credentials",
        json_schema_extra={"pattern": _API.pattern},
    )
    project: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)+$", description="ORG/REPOSITORY")
    channels: list[str] | None = Field(None, description="the channels whose promotions are reviewed; left out: all")

    @field_validator("api")
    @classmethod
    def _is_address(cls, value: str) -> str:
        # Not by pydantic's pattern, whose error repeats what was given.
        if not _API.fullmatch(value):
            problem = "it is no http or https address without credentials and query: set MODELMILL_GIT_API_TOKEN"
            raise ValueError(problem)
        return value


class GitOps(Closed):
    """A Git repository of Kustomize overlays that promotions are committed to.

    Credentials come from the environment: MODELMILL_GIT_USERNAME and MODELMILL_GIT_TOKEN for http,
    MODELMILL_GIT_SSH_KEY for ssh, MODELMILL_GIT_API_TOKEN for pull requests (the token where it is left out), and
    MODELMILL_GIT_SIGNING_KEY, an ssh key, for signed commits; of both keys the key itself, or its file's path.
    """

    remote: str = Field(
        description="https://…, ssh://…, user@host:path, file:///… or a directory; without credentials",
        json_schema_extra={"not": {"pattern": _CREDENTIALS}},
    )
    branch: str = Field("main", description="the branch that the cluster follows")
    overlay: str = Field("overlays/{model}/{channel}", description="the overlay's folder in the repository")
    image: str | None = Field(
        None, pattern="^[^@ ]+@sha256:[0-9a-f]{64}$", description="the serving image, NAME@sha256:…, where it is known"
    )
    author_name: str = Field("modelmill", pattern=r"^[^<>\r\n]+$")
    author_email: str = Field("modelmill@localhost", pattern=r"^[^<>\s]+$")
    known_hosts: str | None = Field(
        None, description="lines of an ssh known_hosts file; left out, the user's own file is asked"
    )
    review: Review | None = Field(None, description="pull requests in place of commits on the branch")

    @field_validator("remote")
    @classmethod
    def _without_credentials(cls, value: str) -> str:
        if value.startswith("/") or _SCP.fullmatch(value):
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https", "ssh", "file"):
            problem = "it is no http, https, ssh or file URL and no absolute directory"
            raise ValueError(problem)
        if parts.password or (parts.username and parts.scheme != "ssh"):
            problem = "credentials do not belong into the address: set MODELMILL_GIT_USERNAME and MODELMILL_GIT_TOKEN"
            raise ValueError(problem)
        if "?" in value or "#" in value:
            problem = "what follows a ? or # does not belong into the address: credentials go into MODELMILL_GIT_TOKEN"
            raise ValueError(problem)
        return value

    @field_validator("branch")
    @classmethod
    def _is_branch(cls, value: str) -> str:
        if not _REF.fullmatch(value):
            problem = "it cannot name a branch"
            raise ValueError(problem)
        return value

    @field_validator("overlay")
    @classmethod
    def _is_folder(cls, value: str) -> str:
        folder = value.rstrip("/")
        parts = folder.replace("{model}", "m").replace("{channel}", "c").split("/")
        if any(part.lower() in _NO_FOLDER or not part.isprintable() or set(part) & set("{}\\") for part in parts):
            problem = "it is no path inside the repository, as overlays/{model}/{channel}; only these two are filled in"
            raise ValueError(problem)
        return folder

    def folder(self, model: str, channel: str) -> str:
        """The overlay's folder of a channel."""
        return self.overlay.format(model=model, channel=channel)

    def reviewed(self, channel: str) -> Review | None:
        """How promotions to a channel are reviewed, or None where they go to the branch."""
        review = self.review
        return review if review and (review.channels is None or channel in review.channels) else None
