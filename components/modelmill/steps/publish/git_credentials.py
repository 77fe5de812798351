"""What a Git remote asks for, from the environment, and how Git is given it: by its own environment, and key files."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelmill.core.errors import DeploymentError
from modelmill.steps.publish.gitops_settings import GIT_VARIABLES, GitOps

_BEGIN = "-----BEGIN"
_LONGEST = 1 << 16
_KEPT = {"GIT_EXEC_PATH", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"}


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
        """The variables MODELMILL_GIT_…; one that is empty is as one that is not set.

        Raises:
            DeploymentError: A variable of a key holds neither a key nor the path of a file with one.
        """

        def value(name: str) -> str | None:
            return environment.get(GIT_VARIABLES + name) or None

        token = value("TOKEN")
        return cls(
            username=value("USERNAME") or "modelmill",
            token=token,
            ssh_key=_key(environment, f"{GIT_VARIABLES}SSH_KEY"),
            signing_key=_key(environment, f"{GIT_VARIABLES}SIGNING_KEY"),
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


def _key(environment: Mapping[str, str], name: str) -> str | None:
    """A private key: what the variable holds, or the file that it names, as MODELMILL_SIGNING_KEY does."""
    given = environment.get(name)
    if not given or _BEGIN in given:
        return given or None
    try:
        with Path(given).open(encoding="utf-8") as stream:
            found = stream.read(_LONGEST)
    except (OSError, ValueError):
        found = ""
    if _BEGIN not in found:
        # What stands in the variable may be a damaged key: it is not repeated.
        what = f"{name} holds no private key, nor the path of a file with one that can be read here"
        fix = "give the OpenSSH private key itself, from its line -----BEGIN on, or the path of its file"
        raise DeploymentError(what, where=name, fix=fix)
    return found


def key_file(path: Path, key: str | None) -> Path | None:
    """A key as a file that only this user reads: ssh takes no other."""
    if key is None:
        return None
    path.touch(mode=0o600)
    # An environment variable often loses the last line's end, without which ssh reads no key.
    path.write_text(key.replace("\r\n", "\n").rstrip("\n") + "\n", "utf-8")
    return path


def environment_of(settings: GitOps, credentials: Credentials, folder: Path) -> dict[str, str]:
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
        if name in _KEPT or not name.startswith(("GIT_", GIT_VARIABLES))
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
    key = key_file(folder / "identity", credentials.ssh_key)
    if key:
        options += [f"IdentityFile={key}", "IdentitiesOnly=yes"]
    if settings.known_hosts:
        hosts = folder / "known_hosts"
        hosts.write_text(settings.known_hosts.rstrip("\n") + "\n", "utf-8")
        options += [f"UserKnownHostsFile={hosts}"]
    return " ".join(["ssh", *(f"-o {option}" for option in options)])
