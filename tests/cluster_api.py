"""The part of the Kubernetes API that Airflow's provider uses, on loopback, for the cluster of cluster.py.

Pods are made, read, labelled and deleted, their logs and events read, and commands run in them over a WebSocket.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import re
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import kubernetes_validate

from cluster import Cluster
from environments import kubeconfig
from podman import Podman

_PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+)(?:/(log|exec))?)?$")
_EVENTS = re.compile(r"/api/v1/namespaces/([^/]+)/events$")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the tests look at what comes back."""

    def do_GET(self) -> None:
        path, query = self._asked()
        if _EVENTS.match(path):
            self._events(query)
            return
        found = _PODS.match(path)
        name, part = (found[2], found[3]) if found else (None, None)
        if name not in self.cluster.names():
            self._missing()
        elif part == "log" and self.cluster.read(name)["status"]["phase"] == "Pending":
            self._answer(400, {"kind": "Status", "status": "Failure", "code": 400, "message": "waiting to start"})
        elif part == "log":
            self._send(200, self.cluster.log(name, query["container"][0]).encode(), "text/plain")
        elif part == "exec":
            self._exec(name, query)
        else:
            self._answer(200, self.cluster.read(name))

    def do_POST(self) -> None:
        if not _PODS.match(self._asked()[0]):
            self._missing()
            return
        try:
            self._answer(201, self.cluster.create(self._body()))
        except kubernetes_validate.ValidationError as problem:
            self._answer(422, {"kind": "Status", "status": "Failure", "code": 422, "message": problem.message})

    def do_PATCH(self) -> None:
        self._with_pod(lambda name: self.cluster.label(name, self._body()["metadata"]["labels"]))

    def do_DELETE(self) -> None:
        self._body()
        self._with_pod(self.cluster.delete)

    def _with_pod(self, act: Any) -> None:
        found = _PODS.match(self._asked()[0])
        if not found or found[2] not in self.cluster.names():
            self._missing()
        else:
            self._answer(200, act(found[2]))

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        split = urllib.parse.urlsplit(self.path)
        return split.path, urllib.parse.parse_qs(split.query)

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

    def _missing(self) -> None:
        self._answer(404, {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})

    def _events(self, query: Mapping[str, list[str]]) -> None:
        """There are none; a watch waits for some as long as it was asked to, as one that ends at once is begun anew."""
        if "watch" in query:
            time.sleep(float(query.get("timeoutSeconds", ["1"])[0]))
            self._send(200, b"", "application/json")
        else:
            self._answer(200, {"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": []})

    def _answer(self, code: int, document: Any) -> None:
        self._send(code, json.dumps(document).encode(), "application/json")

    def _send(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        # A client may have turned away meanwhile: a watch that is no longer wanted.
        with contextlib.suppress(ConnectionError):
            self.end_headers()
            self.wfile.write(body)

    def _exec(self, name: str, query: Mapping[str, list[str]]) -> None:
        """Run a command by the protocol v4.channel.k8s.io: a frame's first byte says which stream it is of."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        process = self.cluster.start_command(name, query["container"][0], query["command"])
        assert process.stdin
        assert process.stdout
        assert process.stderr
        lock = threading.Lock()

        def pump(channel: int, stream: BinaryIO) -> None:
            while data := stream.read1():  # type: ignore[attr-defined]
                with lock:
                    self._frame(2, bytes([channel]) + data)

        pumps = [
            threading.Thread(target=pump, args=(channel, stream), daemon=True)
            for channel, stream in ((1, process.stdout), (2, process.stderr))
        ]
        for thread in pumps:
            thread.start()
        threading.Thread(target=self._feed, args=(process.stdin,), daemon=True).start()
        process.wait()
        for thread in pumps:
            thread.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                stream.close()
        with lock:
            self._frame(2, b"\x03" + json.dumps({"metadata": {}, "status": "Success"}).encode())
            self._frame(8, struct.pack("!H", 1000))
        self.close_connection = True

    def _frame(self, kind: int, data: bytes) -> None:
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack("!H", len(data))
        with contextlib.suppress(OSError):
            self.wfile.write(bytes([0x80 | kind]) + size + data)

    def _feed(self, stdin: BinaryIO) -> None:
        """Hand the client's frames of channel 0 to a process."""
        with contextlib.suppress(OSError, ValueError, struct.error):
            while head := self.rfile.read(2):
                size = head[1] & 0x7F
                if size >= 126:
                    size = struct.unpack("!H" if size == 126 else "!Q", self.rfile.read(2 if size == 126 else 8))[0]
                mask, data = self.rfile.read(4), self.rfile.read(size)
                plain = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
                if head[0] & 0x0F == 8:
                    return
                if plain[:1] == b"\x00":
                    stdin.write(plain[1:])
                    stdin.flush()


@contextmanager
def cluster(podman: Podman, folder: Path, labels: Mapping[str, str] | None = None) -> Iterator[tuple[Cluster, Path]]:
    """Run a cluster; it and the kubeconfig by which clients find it. All its pods are deleted at the end.

    Args:
        podman: What runs the pods.
        folder: For files.
        labels: Of the one node.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = Cluster(podman, folder, labels or {})
    handler = type("Handler", (_Handler,), {"cluster": made})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    config = folder / "kubeconfig"
    config.write_text(json.dumps(kubeconfig(f"http://127.0.0.1:{server.server_port}")), "utf-8")
    try:
        yield made, config
    finally:
        server.shutdown()
        server.server_close()
        for name in made.names():
            made.delete(name)
