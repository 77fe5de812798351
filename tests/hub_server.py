"""A server that speaks the Hugging Face Hub's HTTP API as far as huggingface_hub needs it to fetch a repository.

`hub_writes` adds what it takes to write one.

Real HTTP on loopback for the real client: info of a repository at a revision, its tree in pages, files with ETag,
``X-Repo-Commit`` and ranges, large files behind a redirect as on the Hub, its error codes, and faults on demand.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_BYTES = 4096
"""Files from this size on are kept as on the Hub's large file storage: sha256 as ETag, served by redirect."""
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.+))?)?")
_RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_STORED = re.compile(r"/stored/([0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class HubRepository:
    """Commits with their files, and the names that point to them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    """What each commit that came by a request says."""
    parents: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    """Who does not send it is told that there is no such repository."""
    gated: bool = False


@dataclass
class Hub:
    """The server's state; tests write it, requests read it."""

    url: str = ""
    stored_url: str = ""
    """Where large files lie: another origin, as the Hub's storage is one."""
    repositories: dict[tuple[str, str], HubRepository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """``METHOD PATH`` of every request, in order."""
    tokens: list[str] = field(default_factory=list)
    """The authorization header of every request that had one."""
    leaked: bool = False
    """Whether a token was sent to the storage, which is another origin."""
    page_size: int = 3
    failures: list[int] = field(default_factory=list)
    """Statuses to answer the next requests with."""
    cut_bodies: int = 0
    """How many bodies of stored files break off halfway."""
    corrupt: bytes | None = None
    """What stored files begin with instead of their own bytes."""

    def push(self, name: str, files: Mapping[str, bytes], *, kind: str = "models", branch: str = "main") -> str:
        """Make a commit of ``files`` and move ``branch`` to it. Returns the commit's id."""
        repository = self.repositories.setdefault((kind, name), HubRepository())
        hasher = hashlib.sha1(f"{name} {len(repository.commits)}".encode(), usedforsecurity=False)
        for path in sorted(files):
            hasher.update(path.encode() + files[path])
        commit = hasher.hexdigest()
        repository.commits[commit] = dict(files)
        repository.names[branch] = commit
        return commit


def blob_id(content: bytes) -> str:
    """Git's id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256_hex(content: bytes) -> str:
    """What the Hub names a large file by."""
    return hashlib.sha256(content).hexdigest()


class HubHandler(BaseHTTPRequestHandler):
    """Answers what a reader asks."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Be silent: tests look at ``Hub.requests``."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        if authorization := self.headers.get("Authorization"):
            self.hub.tokens.append(authorization)
            self.hub.leaked |= path.startswith("/stored/")
        if self.hub.failures:
            self._send(self.hub.failures.pop(0), b"{}")
        elif match := _API.fullmatch(path):
            self._api(*match.groups())
        elif match := _RESOLVE.fullmatch(path):
            self._resolve(*match.groups())
        elif match := _STORED.fullmatch(path):
            self._stored(match[1])
        else:
            self._error(404, "EntryNotFound")

    def _commit(self, kind: str, name: str, revision: str) -> str | None:
        repository = self.hub.repositories.get((kind, name))
        known = f"Bearer {repository.token}" if repository and repository.token else None
        if repository is None or (known and self.headers.get("Authorization") != known and not repository.gated):
            self._error(401, "RepoNotFound")
            return None
        if repository.gated and self.headers.get("Authorization") != known:
            self._error(403, "GatedRepo")
            return None
        wanted = unquote(revision)
        commit = repository.names.get(wanted) or repository.tags.get(wanted, wanted)
        if commit not in repository.commits:
            self._error(404, "RevisionNotFound")
            return None
        return commit

    def _api(self, kind: str, name: str, what: str | None, revision: str | None, folder: str | None) -> None:
        commit = self._commit(kind, name, revision or "main")
        if commit is None:
            return
        files = self.hub.repositories[kind, name].commits[commit]
        if what != "tree":
            self._json({"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in sorted(files)]})
            return
        prefix = f"{unquote(folder)}/" if folder else ""
        entries = self._tree(files, prefix)
        if not entries:
            self._error(404, "EntryNotFound")
            return
        query = parse_qs(urlsplit(self.path).query)
        if query.get("recursive", [""])[0].lower() == "true":
            entries = [self._entry(path, files[path]) for path in sorted(files) if path.startswith(prefix)]
        begin = int(query.get("cursor", ["0"])[0])
        end = begin + self.hub.page_size
        links = {}
        if end < len(entries):
            parts = urlsplit(self.path)
            kept = "&".join(item for item in parts.query.split("&") if item and not item.startswith("cursor="))
            links["Link"] = f'<{self.hub.url}{parts.path}?{kept}&cursor={end}>; rel="next"'
        self._json(entries[begin:end], links)

    def _tree(self, files: Mapping[str, bytes], prefix: str) -> list[dict[str, Any]]:
        entries: dict[str, dict[str, Any]] = {}
        for path in sorted(files):
            if not path.startswith(prefix):
                continue
            inside, _, deeper = path.removeprefix(prefix).partition("/")
            content = files[path]
            if deeper:
                entries[inside] = {"type": "directory", "path": prefix + inside, "oid": "0" * 40, "size": 0}
                continue
            entries[inside] = self._entry(path, content)
        return list(entries.values())

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        large = {"lfs": {"oid": sha256_hex(content), "size": len(content), "pointerSize": 134}}
        entry = {"type": "file", "path": path, "oid": blob_id(content), "size": len(content)}
        return {**entry, **(large if len(content) >= LFS_BYTES else {})}

    def _resolve(self, datasets: str | None, name: str, revision: str, path: str) -> None:
        kind = "datasets" if datasets else "models"
        commit = self._commit(kind, name, revision)
        if commit is None:
            return
        content = self.hub.repositories[kind, name].commits[commit].get(unquote(path))
        if content is None:
            self._error(404, "EntryNotFound", {"X-Repo-Commit": commit})
        elif len(content) >= LFS_BYTES:
            headers = {
                "Location": f"{self.hub.stored_url}/stored/{sha256_hex(content)}",
                "X-Repo-Commit": commit,
                "X-Linked-ETag": f'"{sha256_hex(content)}"',
                "X-Linked-Size": str(len(content)),
            }
            self._send(302, b"", headers)
        else:
            self._file(content, {"X-Repo-Commit": commit, "ETag": f'"{blob_id(content)}"'})

    def _stored(self, sha256: str) -> None:
        contents = [
            content
            for repository in self.hub.repositories.values()
            for files in repository.commits.values()
            for content in files.values()
        ]
        content = next((content for content in contents if sha256_hex(content) == sha256), None)
        if content is None:
            self._error(404, "EntryNotFound")
            return
        if self.hub.corrupt is not None:
            content = self.hub.corrupt + content[len(self.hub.corrupt) :]
        self._file(content, {"ETag": f'"{sha256}"'})

    def _file(self, content: bytes, headers: dict[str, str]) -> None:
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if not match:
            self._send(200, content, {"Accept-Ranges": "bytes", **headers})
            return
        begin, end = int(match[1]), int(match[2] or len(content) - 1)
        headers["Content-Range"] = f"bytes {begin}-{end}/{len(content)}"
        self._send(206, content[begin : end + 1], headers)

    def _json(self, document: Any, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cut_bodies and len(body) >= LFS_BYTES:
            self.hub.cut_bodies -= 1
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)


@contextmanager
def hub_server(answering: type[HubHandler] | None = None) -> Iterator[Hub]:
    """Run the server and its storage on free ports of loopback; one to be read, unless told otherwise."""
    hub = Hub()
    handler = type("Handler", (answering or HubHandler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.url, hub.stored_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
