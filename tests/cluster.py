"""A cluster of one node, whose pods podman runs; cluster_api.py is how clients reach it.

A pod is checked strictly against Kubernetes' own schema before it is taken. What podman does not do as a kubelet does
is done here: a node selector or an extended resource that the node lacks keeps a pod pending, so does an image that is
not there, and none that must not be root's runs as root.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from podman import Podman

KUBERNETES = "1.37"
_NODE = {"cpu", "memory", "ephemeral-storage"}


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
                self._podman("pod", "rm", "--force", "--time=0", name)
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
            removed = self._podman("pod", "rm", "--force", "--time=0", name)
            assert removed.returncode == 0, removed.stderr
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
