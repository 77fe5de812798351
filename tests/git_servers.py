"""Real Git remotes on this machine: a bare repository, http in front of it with its pull requests' API, and ssh."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

USER, TOKEN = "modelmill", "s3cret-token-of-a-test"
_HEADERS_END = b"\r\n\r\n"


def require_git() -> None:
    """Skip, or fail under MODELMILL_REQUIRE_ALL=1, where there is no git."""
    if shutil.which("git") is None:
        if os.environ.get("MODELMILL_REQUIRE_ALL") == "1":
            pytest.fail("git is not installed")
        pytest.skip("git is not installed")


def git(repository: Path, *arguments: str, given: str = "") -> str:
    """What git prints of a bare repository, with nobody's configuration."""
    environment = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    for name in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{name}_NAME": "a person", f"GIT_{name}_EMAIL": "person@example.org"}
    done = subprocess.run(
        ["git", "--git-dir", str(repository), *arguments],
        input=given,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_repository(path: Path, files: dict[str, str] | None = None, object_format: str = "sha1") -> Path:
    """A bare repository whose branch main has one commit."""
    require_git()
    path.parent.mkdir(parents=True, exist_ok=True)
    git(path, "init", "--quiet", "--bare", "--initial-branch=main", f"--object-format={object_format}")
    commit_files(path, files or {"README.md": "overlays\n"})
    return path


def commit_files(repository: Path, files: dict[str, str], message: str = "By a person") -> str:
    """Commit files on main, as a person would."""
    branch = "refs/heads/main"
    heads = git(repository, "for-each-ref", "--format=%(objectname)", branch).split()
    if heads:
        git(repository, "read-tree", heads[0])
    for name, content in files.items():
        blob = git(repository, "hash-object", "-w", "--stdin", given=content).strip()
        git(repository, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")
    tree = git(repository, "write-tree").strip()
    parents = ["-p", heads[0]] if heads else []
    commit = git(repository, "commit-tree", *parents, "-m", message, tree).strip()
    git(repository, "update-ref", branch, commit, *heads)
    return commit


def file_of(repository: Path, path: str, branch: str = "main") -> str:
    """A file's content on a branch."""
    return git(repository, "show", f"{branch}:{path}")


def commits(repository: Path, branch: str = "main") -> list[str]:
    """The subjects of a branch's commits, the first one first; each must have one parent at most."""
    lines = git(repository, "log", "--reverse", "--format=%P\x1f%s", branch).splitlines()
    assert all(" " not in line.split("\x1f")[0] for line in lines)
    return [line.split("\x1f")[1] for line in lines]


def hook(repository: Path, words: str) -> None:
    """Let the server decline every push with those words."""
    path = repository / "hooks" / "pre-receive"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
    path.chmod(0o755)


@dataclass
class GitServer:
    """A Git host: ``/git/NAME`` by git http-backend, and the API of pull requests for the project ORG/NAME.

    Attributes:
        address: ``http://127.0.0.1:PORT``.
        pulls: Every pull request, as GitHub and GitLab would give it, and what it was opened with.
        seen: Every request's line and headers.
        failing: Answers of 503 that it gives before it works, to what begins with ``failing_at``.
        silent: Pushes that it takes and does not answer.
    """

    address: str
    root: Path
    pulls: list[dict[str, Any]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    failing: int = 0
    failing_at: str = "/"
    silent: int = 0


@contextmanager
def git_server(root: Path) -> Iterator[GitServer]:
    """Serve the bare repositories below a folder."""
    require_git()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    found = GitServer(f"http://127.0.0.1:{server.server_address[1]}", root)
    server.host = found  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, name="git-server")
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def host(self) -> GitServer:
        found: GitServer = self.server.host  # type: ignore[attr-defined]
        return found

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.host.seen.append(f"{self.requestline}\n{self.headers}")
        if self.host.failing and self.path.startswith(self.host.failing_at):
            self.host.failing -= 1
            self._send(503, {"message": "Service Unavailable"})
            return
        path, _, query = self.path.partition("?")
        if path.startswith("/git/"):
            self._git(path.removeprefix("/git"), query, body)
        elif path.startswith("/api/"):
            self._api(path, dict(urllib.parse.parse_qsl(query)), body)
        else:
            self._send(404, {"message": "Not Found"})

    def _git(self, path: str, query: str, body: bytes) -> None:
        wanted = "Basic " + base64.b64encode(f"{USER}:{TOKEN}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.host.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": USER,
            "PATH_INFO": urllib.parse.unquote(path),
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=False)
        if self.host.silent and self.command == "POST" and path.endswith("/git-receive-pack"):
            self.host.silent -= 1
            self.close_connection = True
            return
        head, _, content = done.stdout.partition(_HEADERS_END)
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _api(self, path: str, query: dict[str, str], body: bytes) -> None:
        host = self.host
        github = "/repos/" in path
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or self.headers.get("PRIVATE-TOKEN")
        if token != TOKEN:
            self._send(401, {"message": f"Bad credentials {token}"})
            return
        parts = [urllib.parse.unquote(part) for part in path.split("/")]
        project = "/".join(parts[-3:-1]) if github else parts[-2]
        repository = host.root / f"{project.split('/')[-1]}"
        if not repository.is_dir() or parts[-1] != ("pulls" if github else "merge_requests"):
            self._send(404, {"message": "Not Found"})
            return
        names = ("head", "base") if github else ("source_branch", "target_branch")
        if self.command == "GET":
            head = query[names[0]].removeprefix(f"{project.split('/')[0]}:" if github else "")
            found = [item for item in host.pulls if (item["_head"], item["_base"]) == (head, query[names[1]])]
            self._send(200, found[::-1])
            return
        sent = json.loads(body)
        head = sent[names[0]]
        if any(item["_head"] == head and item["state"] in ("open", "opened") for item in host.pulls):
            self._send(422 if github else 409, {"message": "one exists already"})
            return
        exists = git(repository, "for-each-ref", f"refs/heads/{head}")
        if not exists:
            self._send(422 if github else 400, {"message": "Validation Failed", "errors": [{"field": "head"}]})
            return
        number = len(host.pulls) + 1
        made = {"number": number, "_head": head, "_base": sent[names[1]], "sent": sent}
        if github:
            made |= {"html_url": f"{host.address}/{project}/pull/{number}", "state": "open", "merged_at": None}
        else:
            made |= {"web_url": f"{host.address}/{project}/-/merge_requests/{number}", "state": "opened"}
        host.pulls.append(made)
        self._send(201, made)

    def _send(self, code: int, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
