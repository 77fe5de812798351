"""A cluster of one node: an API server on loopback that takes pods as Kubernetes does, and podman that runs them.

It speaks the part of the Kubernetes API that Airflow's provider uses: pods made, read, labelled and deleted, their logs
and events, and commands run in them over a WebSocket. A pod is checked strictly against Kubernetes' own schema before
it is taken. What podman does not do as a kubelet does is done here: a node selector or an extended resource that the
node lacks keeps a pod pending, so does an image that is not there, and none that must not be root's runs as root.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import re
import struct
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import kubernetes_validate
import yaml

from environments import kubeconfig
from podman import Podman

KUBERNETES = "1.37"
_NODE = {"cpu", "memory", "ephemeral-storage"}
_PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+)(?:/(log|exec))?)?$")
_EVENTS = re.compile(r"/api/v1/namespaces/([^/]+)/events$")


def check_strictly(pod: Mapping[str, Any]) -> None:
    """Raise kubernetes_validate.ValidationError unless a pod is one by the schema; an unknown field is none."""
    kubernetes_validate.validate(dict(pod), KUBERNETES, strict=True)


class Cluster:
    """The pods of the cluster, by name. Namespaces are taken as they come."""

    def __init__(self, podman: Podman, folder: Path, labels: Mapping[str, str]) -> None:
        self._podman, self._folder, self._labels = podman, folder, labels
        self._lock = threading.Lock()
        self.taken: dict[str, dict[str, Any]] = {}
        """Every pod as it was sent, deleted ones, too."""
        self.logs: dict[str, str] = {}
        """Container → what it had written when its pod was deleted."""
        self._pods: dict[str, dict[str, Any]] = {}

    def names(self) -> list[str]:
        """The pods that are there."""
        return sorted(self._pods)

    def create(self, pod: dict[str, Any]) -> dict[str, Any]:
        """Take a pod and start it, or leave it pending where this node cannot."""
        check_strictly(pod)
        name = pod["metadata"]["name"]
        self.taken[name] = json.loads(json.dumps(pod))
        metadata = {**pod["metadata"], "uid": name, "creationTimestamp": _now(), "resourceVersion": "1"}
        reason = self._unschedulable(pod) or self._unstartable(pod)
        kept = {**pod, "metadata": metadata, "pending": reason}
        if reason is None:
            file = self._folder / f"{name}.yaml"
            file.write_text(yaml.safe_dump(_with_volumes_of_its_own(pod)), "utf-8")
            played = self._podman("kube", "play", "--network=host", file)
            if played.returncode != 0:
                kept["pending"] = _waiting(pod, "CreateContainerConfigError", played.stderr.strip())
        with self._lock:
            self._pods[name] = kept
        return self.read(name)

    def read(self, name: str) -> dict[str, Any]:
        """A pod with its status; KeyError where there is none."""
        pod = dict(self._pods[name])
        pending = pod.pop("pending")
        return {**pod, "status": pending or self._status(pod)}

    def label(self, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
        """Add labels to a pod."""
        metadata = self._pods[name]["metadata"]
        metadata["labels"] = {**metadata.get("labels", {}), **labels}
        return self.read(name)

    def delete(self, name: str) -> dict[str, Any]:
        """Delete a pod; what its containers wrote stays in `logs`."""
        pod = self.read(name)
        if not self._pods[name]["pending"]:
            for container in pod["spec"]["containers"]:
                self.logs[f"{name}-{container['name']}"] = self.log(name, container["name"])
            self._podman("pod", "rm", "--force", "--time=0", name)
        with self._lock:
            del self._pods[name]
        return pod

    def log(self, name: str, container: str) -> str:
        """What a container wrote, once it has ended."""
        self._podman("wait", f"{name}-{container}") if container == "base" else None
        ended = self._podman("logs", f"{name}-{container}")
        return ended.stdout + ended.stderr

    def start_command(self, name: str, container: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a command in a running container."""
        return self._podman.start("exec", "--interactive", f"{name}-{container}", *command)

    def _unschedulable(self, pod: Mapping[str, Any]) -> dict[str, Any] | None:
        wanted = pod["spec"].get("nodeSelector", {})
        requests = [item.get("resources", {}).get("requests", {}) for item in pod["spec"]["containers"]]
        lacking = sorted({name for request in requests for name in request if name not in _NODE})
        if any(self._labels.get(label) != value for label, value in wanted.items()):
            message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
        elif lacking:
            message = f"0/1 nodes are available: 1 Insufficient {lacking[0]}."
        else:
            return None
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        return {"phase": "Pending", "conditions": [condition]}

    def _unstartable(self, pod: Mapping[str, Any]) -> dict[str, Any] | None:
        for container in pod["spec"]["containers"]:
            image, policy = container["image"], container.get("imagePullPolicy")
            inspected = self._podman("image", "inspect", image)
            if inspected.returncode != 0:
                if policy == "Never":
                    message = f'Container image "{image}" is not present with pull policy of Never'
                    return _waiting(pod, "ErrImageNeverPull", message)
                return _waiting(pod, "ImagePullBackOff", f'Back-off pulling image "{image}": not found')
            own, whole = container.get("securityContext", {}), pod["spec"].get("securityContext", {})
            user = own.get("runAsUser", json.loads(inspected.stdout)[0]["User"].partition(":")[0] or "0")
            if own.get("runAsNonRoot", whole.get("runAsNonRoot")) and str(user) in {"0", "root"}:
                message = "container has runAsNonRoot and image will run as root"
                return _waiting(pod, "CreateContainerConfigError", message)
        return None

    def _status(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        names = [item["name"] for item in pod["spec"]["containers"]]
        inspected = self._podman("inspect", *(f"{pod['metadata']['name']}-{name}" for name in names))
        assert inspected.returncode == 0, inspected.stderr
        states = {name: item["State"] for name, item in zip(names, json.loads(inspected.stdout), strict=True)}
        ended = all(state["Status"] in {"exited", "stopped"} for state in states.values())
        failed = any(state["ExitCode"] for state in states.values())
        statuses = [_container_status(item, _state(states[item["name"]])) for item in pod["spec"]["containers"]]
        condition = {"type": "PodScheduled", "status": "True"}
        phase = ("Failed" if failed else "Succeeded") if ended else "Running"
        return {"phase": phase, "conditions": [condition], "containerStatuses": statuses}


def _state(state: Mapping[str, Any]) -> dict[str, Any]:
    if state["Status"] not in {"exited", "stopped"}:
        return {"running": {"startedAt": _now()}}
    code = state["ExitCode"]
    # podman does not learn of it here; the kernel kills nothing else of a pod with this signal.
    reason = "OOMKilled" if code == 137 else "Error" if code else "Completed"
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": _now(), "startedAt": _now()}}


def _waiting(pod: Mapping[str, Any], reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    statuses = [_container_status(item, state) for item in pod["spec"]["containers"]]
    condition = {"type": "PodScheduled", "status": "True"}
    return {"phase": "Pending", "conditions": [condition], "containerStatuses": statuses}


def _container_status(container: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    ready = "running" in state
    identity = {"name": container["name"], "image": container["image"], "imageID": container["image"]}
    return {**identity, "state": state, "ready": ready, "restartCount": 0}


def _with_volumes_of_its_own(pod: Mapping[str, Any]) -> dict[str, Any]:
    """The pod as podman is given it: its volumes are named for all pods of the machine."""
    copied: dict[str, Any] = json.loads(json.dumps(pod))
    name = copied["metadata"]["name"]
    for volume in copied["spec"].get("volumes", []):
        volume["name"] = f"{name}-{volume['name']}"
    for container in copied["spec"]["containers"]:
        for mount in container.get("volumeMounts", []):
            mount["name"] = f"{name}-{mount['name']}"
    return copied


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the tests look at what comes back."""

    def do_GET(self) -> None:
        path, query = self._asked()
        if _EVENTS.match(path):
            self._answer(200, {"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": []}, query)
            return
        found = _PODS.match(path)
        name, part = (found[2], found[3]) if found else (None, None)
        if name not in self.cluster.names():
            self._missing()
        elif part == "log":
            text = self.cluster.log(name, query["container"][0]).encode()
            self._send(200, text, "text/plain")
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

    def _answer(self, code: int, document: Any, query: Mapping[str, Any] | None = None) -> None:
        # A watch with nothing to tell ends at once.
        self._send(code, b"" if query and "watch" in query else json.dumps(document).encode(), "application/json")

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
        assert process.stdin is not None
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
