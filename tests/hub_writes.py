"""What a Hub answers who writes a repository: commits, branches, tags, and large files by Git LFS.

As huggingface_hub 2 asks for it with Xet left out (HF_HUB_DISABLE_XET). A commit is taken on the parent that it names
and no other; a large file only when its storage has the bytes.
Sources: huggingface_hub's _commit_api.py and lfs.py; git-lfs, docs/api/batch.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import unquote, urlsplit

from hub_server import LFS_BYTES, Hub, HubHandler, HubRepository, blob_id, hub_server, sha256_hex

_REFS = re.compile(r"/api/models/([^/]+/[^/]+)/refs")
_WRITE = re.compile(r"/api/models/([^/]+/[^/]+)/(branch|tag|preupload|commit)/([^/]+)")
_BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/(batch|verify)")
_UPLOAD = re.compile(r"/upload/([0-9a-f]{64})")


class WritableHubHandler(HubHandler):
    """Answers writers, too. Who writes sends the repository's token."""

    uploaded: dict[str, bytes]
    lock: threading.Lock

    def do_POST(self) -> None:
        self._written()

    def do_PUT(self) -> None:
        self._written()

    def do_GET(self) -> None:
        match = _REFS.fullmatch(urlsplit(self.path).path)
        if match is None:
            super().do_GET()
            return
        self.hub.requests.append(f"GET {match[0]}")
        if self.hub.failures:
            self._send(self.hub.failures.pop(0), b"{}")
            return
        repository = self._mine(match[1])
        if repository is not None:
            branches, tags = ([_ref(kind, *item) for item in sorted(names.items())]
                              for kind, names in (("heads", repository.names), ("tags", repository.tags)))  # fmt: skip
            self._json({"branches": branches, "tags": tags, "converts": []})

    def _written(self) -> None:
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        if authorization := self.headers.get("Authorization"):
            self.hub.tokens.append(authorization)
            self.hub.leaked |= path.startswith("/upload/")
        if self.hub.failures:
            self._send(self.hub.failures.pop(0), b"{}")
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := _UPLOAD.fullmatch(path):
            good = sha256_hex(body) == match[1]
            self.uploaded.update({match[1]: body} if good else {})
            self._send(200 if good else 400, b"")
        elif match := _BATCH.fullmatch(path):
            self._lfs(match[1], match[2], json.loads(body))
        elif match := _WRITE.fullmatch(path):
            repository = self._mine(match[1])
            if repository is not None:
                with self.lock:
                    getattr(self, f"_{match[2]}_request")(repository, unquote(match[3]), body)
        else:
            self._error(404, "EntryNotFound")

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _mine(self, name: str) -> HubRepository | None:
        """The repository, if whoever asks may write it."""
        repository = self.hub.repositories.get(("models", name))
        if repository is None or self.headers.get("Authorization") != f"Bearer {repository.token}":
            self._error(401, "RepoNotFound")
            return None
        if repository.gated:
            self._error(403, "Forbidden")
            return None
        return repository

    def _branch_request(self, repository: HubRepository, branch: str, body: bytes) -> None:
        start = json.loads(body or b"{}").get("startingPoint", "main")
        commit = repository.names.get(start) or repository.tags.get(start, start)
        if branch in repository.names:
            self._error(409, "Conflict")
        elif commit not in repository.commits:
            self._error(404, "RevisionNotFound")
        else:
            repository.names[branch] = commit
            self._json({})

    def _tag_request(self, repository: HubRepository, revision: str, body: bytes) -> None:
        tag = json.loads(body)["tag"]
        if tag in repository.tags:
            self._error(409, "Conflict")
        else:
            repository.tags[tag] = repository.names.get(revision, revision)
            self._json({})

    def _preupload_request(self, repository: HubRepository, branch: str, body: bytes) -> None:
        there = repository.commits[repository.names[branch]]
        files = []
        for asked in json.loads(body)["files"]:
            large = asked["size"] >= LFS_BYTES
            content = there.get(asked["path"])
            oid = None if content is None else sha256_hex(content) if large else blob_id(content)
            mode = "lfs" if large else "regular"
            files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": files})

    def _lfs(self, name: str, what: str, asked: dict[str, Any]) -> None:
        if self._mine(name) is None:
            return
        if what == "verify":
            self._send(200 if len(self.uploaded.get(asked["oid"], b"")) == asked["size"] else 404, b"{}")
            return
        objects = []
        for item in asked["objects"]:
            upload = {"upload": {"href": f"{self.hub.stored_url}/upload/{item['oid']}"},
                      "verify": {"href": f"{self.hub.url}/{name}.git/info/lfs/objects/verify"}}  # fmt: skip
            objects.append({**item, **({} if item["oid"] in self.uploaded else {"actions": upload})})
        self._json({"transfer": "basic", "objects": objects})

    def _commit_request(self, repository: HubRepository, branch: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        head = repository.names.get(branch)
        if head is None:
            self._error(404, "RevisionNotFound")
            return
        if header.get("parentCommit", head) != head:
            self._error(412, "PreconditionFailed")
            return
        files = dict(repository.commits[head])
        for line in lines[1:]:
            path = line["value"]["path"]
            if line["key"] == "deletedFile":
                del files[path]
            elif line["key"] == "file":
                files[path] = base64.b64decode(line["value"]["content"])
            else:
                files[path] = self.uploaded[line["value"]["oid"]]
        commit = hashlib.sha1(f"{head} {len(repository.commits)}".encode(), usedforsecurity=False).hexdigest()
        repository.commits[commit] = files
        repository.names[branch] = commit
        repository.messages[commit] = header["summary"]
        repository.parents[commit] = head
        self._json(
            {
                "commitUrl": f"{self.hub.url}/{self.path.split('/')[3]}/{self.path.split('/')[4]}/commit/{commit}",
                "commitOid": commit,
                "success": True,
            }
        )


def _ref(kind: str, name: str, commit: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}


def writable_hub() -> AbstractContextManager[Hub]:
    """Run a Hub that can be written."""
    state = {"uploaded": {}, "lock": threading.Lock()}
    return hub_server(type("Handler", (WritableHubHandler,), state))
