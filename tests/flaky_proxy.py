"""A real proxy before the real S3 server that fails as networks and busy servers do."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


class Fault(StrEnum):
    """What happens to a request."""

    BUSY = "answered with 503 SlowDown, not passed on"
    LOST = "passed on, its answer lost"
    CUT = "passed on, its answer's body cut in the middle"
    HELD = "passed on only when the proxy is told to go on"
    AWAY = "neither passed on nor answered"


@dataclass
class Proxy:
    """A running proxy."""

    endpoint: str
    seen: list[str] = field(default_factory=list)
    """Method and path of each request, in order."""
    faults: list[tuple[Callable[[str, str], bool], Fault]] = field(default_factory=list)
    """Each is used once, by the first request that its condition (of method and path) holds for."""
    held: threading.Event = field(default_factory=threading.Event)
    """Set when a request is being held."""
    go_on: threading.Event = field(default_factory=threading.Event)
    """Set it to pass held requests on."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    leave_at: Callable[[str, str], bool] | None = None
    """From the first request on that this holds for, none is answered, until `come_back`."""
    away: bool = False

    def come_back(self) -> None:
        """Answer again."""
        self.away, self.leave_at = False, None

    def take(self, method: str, path: str) -> Fault | None:
        """Note a request; the fault it meets."""
        with self.lock:
            self.seen.append(f"{method} {path}")
            self.away = self.away or (self.leave_at is not None and self.leave_at(method, path))
            if self.away:
                return Fault.AWAY
            for entry in self.faults:
                if entry[0](method, path):
                    self.faults.remove(entry)
                    return entry[1]
        return None


@contextmanager
def flaky_proxy(endpoint: str) -> Iterator[Proxy]:
    """Run a proxy to ``endpoint`` on a free port. The Host header is passed on: it is signed."""
    target = urlsplit(endpoint)
    assert target.hostname is not None
    assert target.port is not None
    host, port = target.hostname, target.port

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.take(self.command, self.path)
            if fault is Fault.BUSY:
                self.send_response(503)
                self.send_header("Content-Length", str(len(SLOW_DOWN)))
                self.end_headers()
                self.wfile.write(SLOW_DOWN)
                return
            if fault is Fault.AWAY:
                self.close_connection = True
                return
            if fault is Fault.HELD:
                proxy.held.set()
                proxy.go_on.wait(60)
            upstream = http.client.HTTPConnection(host, port, timeout=30)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if fault is Fault.LOST:
                self.close_connection = True
                return
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP | {"content-length"}:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if fault is Fault.CUT:
                content = content[: len(content) // 2]
                self.close_connection = True
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
