"""A bundle's lane on KServe: a ServingRuntime that starts Triton, and an InferenceService that names the bundle.

charts/serving renders the same from `ServingValues`, which are its values. Threads and batches are the lane's serving
plan, memory is what evaluate measured; neither is asked of a person.

Source: KServe's API, serving.kserve.io/v1beta1 InferenceService and v1alpha1 ServingRuntime.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from modelmill.core.bundle import EVIDENCE_DOCUMENT, SERVING
from modelmill.core.contract import JSON, Closed
from modelmill.core.documents import validate
from modelmill.core.errors import InputError, UsageError

MODELS = "/mnt/models"
"""Where KServe puts what the storageUri names."""
PORT = 8080
USER = 65532
_MIB = 1 << 20
_SERVER_BYTES = 512 * _MIB
"""Triton itself, and the shared memory between it and its backend."""
_STEP_BYTES = 256 * _MIB
PREFIX = "modelmill.dev/"


class Bundle(Closed):
    """What is served."""

    digest: str = Field(pattern="^sha256:[0-9a-f]{64}$", description="the bundle's digest")
    uri: str = Field(pattern=r"^(s3|gs|https|pvc|hdfs|oci)://\S+$", description="where its files lie: the storageUri")
    verdict: str = Field("pass", description="what the lane's evidence says")


class Autoscaling(Closed):
    """How many instances."""

    minReplicas: int = Field(1, ge=0)
    maxReplicas: int = Field(3, ge=1)
    scaleMetric: str = Field("concurrency", pattern="^(concurrency|rps|cpu|memory)$")
    scaleTarget: int = Field(2, ge=1)


class ServingValues(Closed):
    """The values of charts/serving that a bundle decides, and those that are given besides."""

    model: str = Field(description="what the server calls the model")
    target: str = Field(description="the lane")
    bundle: Bundle
    image: str = Field(pattern=r"^[^@\s]+@sha256:[0-9a-f]{64}$", description="the serving image, NAME@sha256:…")
    cpu: str = Field(description="cores, requested and the limit: the threads that were measured")
    memory: str = Field(description="requested and the limit")
    gpus: int = Field(0, ge=0)
    canaryTrafficPercent: int | None = Field(None, ge=0, le=100)
    autoscaling: Autoscaling = Field(default_factory=lambda: Autoscaling.model_validate({}))
    serviceAccountName: str = Field(
        "",
        pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$",
        description="a Kubernetes name: lower-case letters, digits, '.' and '-'",
    )


def values_of(
    bundle: Path,
    uri: str,
    image: str,
    *,
    target: str | None = None,
    canary: int | None = None,
    service_account: str = "",
) -> ServingValues:
    """How a lane of a bundle is served.

    Args:
        bundle: The bundle's directory; its evidence.json is read.
        uri: Where a cluster finds it.
        image: The serving image by its digest.
        target: The lane; None: the bundle's only one.
        canary: Percent of the traffic that the new bundle gets; None: all.
        service_account: Whose credentials fetch the bundle.

    Raises:
        UsageError: There is no such lane, or several and none is named; or an address or the image is no such thing.
        InputError: The lane has no serving files.
    """
    document = json.loads((bundle / EVIDENCE_DOCUMENT).read_bytes())
    lanes: Mapping[str, Mapping[str, JSON]] = document["lanes"]
    if target is None and len(lanes) == 1:
        (target,) = lanes
    if target is None or target not in lanes:
        what = f"the bundle has no lane {target}" if target else "the bundle has several lanes"
        raise UsageError(what, where="--target", fix=f"name one of: {', '.join(lanes)}")
    lane = lanes[target]
    plan = _plan(lane)
    if plan is None:
        what = f"the lane {target} of this bundle has no serving files"
        raise InputError(what, where=str(bundle), fix="publish again with this modelmill; evidence.json says why")
    peak = lane["peak_rss_bytes"]
    needed = 2 * (peak if isinstance(peak, int) else 0) + _SERVER_BYTES
    found = {
        "model": plan["model"],
        "target": target,
        "bundle": {"digest": document["bundle"], "uri": uri, "verdict": lane["verdict"]},
        "image": image,
        "cpu": str(plan["threads"]),
        "memory": f"{-(-needed // _STEP_BYTES) * _STEP_BYTES // _MIB}Mi",
        "gpus": 0 if plan["runtime"] in {"onnxruntime", "openvino"} else 1,
        "canaryTrafficPercent": canary,
        "serviceAccountName": service_account,
    }
    return validate(ServingValues, found, "what a cluster is given", UsageError)


def manifests(values: ServingValues, namespace: str) -> list[dict[str, JSON]]:
    """The ServingRuntime and the InferenceService.

    Raises:
        UsageError: The namespace is no name that Kubernetes takes.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", namespace):
        what = f"{namespace!r} cannot be a namespace"
        fix = "use 63 lower-case letters, digits and '-' at most, with a letter or digit at both ends"
        raise UsageError(what, where="--namespace", fix=fix)
    name = object_name(values.model)
    labels: dict[str, JSON] = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "modelmill"}
    metadata: dict[str, JSON] = {"namespace": namespace, "labels": labels}
    annotations: dict[str, JSON] = {
        f"{PREFIX}bundle": values.bundle.digest,
        f"{PREFIX}model": values.model,
        f"{PREFIX}target": values.target,
        f"{PREFIX}verdict": values.bundle.verdict,
    }
    runtime: dict[str, JSON] = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": f"{name}-triton", **metadata},
        "spec": {
            "supportedModelFormats": [{"name": "triton", "version": "2", "autoSelect": False}],
            "protocolVersions": ["v2"],
            "multiModel": False,
            "containers": [_container(values)],
            # The server and its backend hand tensors over in shared memory.
            "volumes": [{"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}}],
        },
    }
    scale = values.autoscaling
    predictor: dict[str, JSON] = {
        "minReplicas": scale.minReplicas,
        "maxReplicas": scale.maxReplicas,
        "scaleMetric": scale.scaleMetric,
        "scaleTarget": scale.scaleTarget,
        "model": {
            "modelFormat": {"name": "triton"},
            "protocolVersion": "v2",
            "runtime": f"{name}-triton",
            "storageUri": values.bundle.uri,
        },
    }
    if values.canaryTrafficPercent is not None:
        predictor["canaryTrafficPercent"] = values.canaryTrafficPercent
    if values.serviceAccountName:
        predictor["serviceAccountName"] = values.serviceAccountName
    service: dict[str, JSON] = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, **metadata, "annotations": annotations},
        "spec": {"predictor": predictor},
    }
    return [runtime, service]


def object_name(model: str) -> str:
    """A model's name as a Kubernetes service can have it.

    Raises:
        UsageError: Nothing of it can stand in one.
    """
    name = re.sub(r"[^a-z0-9-]+", "-", model.lower()).strip("-")[:40].rstrip("-")
    if not re.match("[a-z]", name):
        name = f"model-{name}".rstrip("-")
    return name


def start_script(target: str) -> str:
    """What starts Triton on the lane, wherever it lies in the bundle: a lane's place may change from run to run."""
    places = f"{MODELS}/{SERVING}/{target} {MODELS}/lanes/*/{SERVING}/{target}"
    return (
        f'for at in {places}; do if [ -d "$at" ]; then exec tritonserver --model-repository="$at" "$@"; fi; done; '
        f'echo "the bundle has no lane {target}" >&2; exit 2'
    )


def _container(values: ServingValues) -> dict[str, JSON]:
    resources: dict[str, JSON] = {"cpu": values.cpu, "memory": values.memory}
    if values.gpus:
        resources["nvidia.com/gpu"] = str(values.gpus)
    return {
        "name": "kserve-container",
        "image": values.image,
        "command": ["/bin/sh", "-c", start_script(values.target), "triton"],
        "args": [
            f"--http-port={PORT}",
            "--allow-grpc=false",
            "--allow-metrics=true",
            "--disable-auto-complete-config",
        ],
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "readinessProbe": {"httpGet": {"path": f"/v2/models/{values.model}/ready", "port": PORT}, "periodSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/v2/health/live", "port": PORT}, "periodSeconds": 10},
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],
    }


def _plan(lane: Mapping[str, JSON]) -> Mapping[str, JSON] | None:
    smoke = lane.get("smoke")
    plan = smoke.get("plan") if isinstance(smoke, dict) else None
    return plan if isinstance(plan, dict) else None
