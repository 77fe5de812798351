"""Waiting in a cluster until an InferenceService serves a bundle, or has failed to.

The Kubernetes client is imported where it is used, so that everything else loads without it.
Source: KServe's API, serving.kserve.io/v1beta1, InferenceServiceStatus.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from modelmill.core.errors import DeploymentError, OutsideError, UsageError
from modelmill.core.progress import Progress

_GROUP, _VERSION, _PLURAL = "serving.kserve.io", "v1beta1", "inferenceservices"
_FINAL = {"BlockedByFailedLoad", "InvalidSpec"}
"""modelStatus.transitionStatus from which nothing comes but by a change."""
_ASK_SECONDS = 10
_AWAY = 5
"""Times that a cluster may not answer, one after another."""


class Health(StrEnum):
    """What became of a rollout."""

    READY = "ready"
    FAILED = "failed"
    LATE = "late"
    """It names the bundle, and does not serve it yet."""
    UNSEEN = "unseen"
    """It does not name the bundle, or cannot be seen: nothing can be said of the bundle."""


@dataclass(frozen=True)
class Rollout:
    """An InferenceService as it was last seen.

    Attributes:
        health: Whether it serves the bundle.
        words: What it says, for people.
        address: Where it answers; None where it does not say.
    """

    health: Health
    words: str
    address: str | None = None


def connect() -> Any:
    """The cluster's API for objects of any kind, by the pod's identity or the user's kubeconfig.

    Raises:
        UsageError: The Kubernetes client is not installed.
        DeploymentError: There is neither identity nor kubeconfig.
    """
    try:
        from kubernetes import client, config
    except ImportError:
        what = "asking a cluster needs the Python package kubernetes, which is not installed here"
        raise UsageError(what, fix="pip install 'modelmill[kubeflow]'") from None
    named = os.environ.get("KUBECONFIG")
    try:
        if named or Path("~/.kube/config").expanduser().is_file():
            config.load_kube_config(config_file=named)
        else:
            config.load_incluster_config()
    except (config.ConfigException, OSError) as problem:
        what = f"there is no cluster to ask: {problem}"
        raise DeploymentError(what, where="KUBECONFIG", fix="name a kubeconfig, or run this in the cluster") from None
    configuration = client.Configuration.get_default_copy()
    # The client would ask a cluster that is away three more times without a word; `wait` does, and tells.
    configuration.retries = False
    return client.CustomObjectsApi(client.ApiClient(configuration))


def wait(
    api: Any,
    namespace: str,
    name: str,
    uri: str,
    *,
    seconds: float,
    progress: Progress,
    poll_seconds: float = 2,
) -> Rollout:
    """Wait until an InferenceService serves what lies at ``uri``.

    Args:
        api: The cluster's, from `connect`.
        namespace: Where it is.
        name: The InferenceService's.
        uri: The storageUri that it must have: what Git, or a person, brings there.
        seconds: How long; then it is late.
        progress: Told what it says, once for each change.
        poll_seconds: Between looks.

    Raises:
        DeploymentError: The cluster does not let us look.
        OutsideError: The cluster is away; or there is no such InferenceService, or it does not name ``uri``.
    """
    end = time.monotonic() + seconds
    told, away = "", 0
    while True:
        try:
            found = seen(_read(api, namespace, name), uri)
            away = 0
        except OutsideError:
            away += 1
            if away >= _AWAY:
                raise
            found = Rollout(Health.UNSEEN, "the cluster does not answer")
        if found.words != told:
            progress.fact(f"{namespace}/{name}: {found.words}")
            told = found.words
        if found.health in {Health.READY, Health.FAILED}:
            return found
        if time.monotonic() >= end:
            if found.health is Health.UNSEEN:
                raise _unseen(namespace, name, found, uri)
            return found
        time.sleep(poll_seconds)


def _unseen(namespace: str, name: str, found: Rollout, uri: str) -> OutsideError:
    what = f"the rollout cannot be judged, and nothing was taken back: {found.words}"
    fix = (
        f"check --namespace and --name, and that {uri} is what a cluster fetches there, else name it by --uri; let the "
        "promotion arrive (a pull request, a pin, the sync from Git, helm upgrade), and check again"
    )
    return OutsideError(what, where=f"{namespace}/{name}", fix=fix)


def seen(service: Mapping[str, Any] | None, uri: str) -> Rollout:
    """What an InferenceService says of the bundle at ``uri``; ``late`` and ``unseen`` while it may still come."""
    if service is None:
        return Rollout(Health.UNSEEN, "there is no such InferenceService yet")
    model = service.get("spec", {}).get("predictor", {}).get("model", {})
    if model.get("storageUri") != uri:
        return Rollout(Health.UNSEEN, f"it names {model.get('storageUri')}, not yet the bundle at {uri}")
    status = service.get("status", {})
    if status.get("observedGeneration", 0) < service.get("metadata", {}).get("generation", 0):
        return Rollout(Health.LATE, "KServe has not seen the bundle yet")
    conditions = {item.get("type"): item for item in status.get("conditions", [])}
    ready = conditions.get("Ready", {})
    state = status.get("modelStatus", {})
    if state.get("transitionStatus") in _FINAL:
        failure = state.get("lastFailureInfo", {})
        words = " ".join(str(failure.get("message") or failure.get("reason") or ready.get("message") or "").split())
        return Rollout(Health.FAILED, f"{state['transitionStatus']}: {words[:600]}")
    if ready.get("status") == "True" and state.get("transitionStatus", "UpToDate") == "UpToDate":
        address = status.get("url") or status.get("address", {}).get("url")
        return Rollout(Health.READY, "it serves the bundle", address)
    waiting = [
        f"{name}: {item.get('reason') or item.get('status')} {item.get('message') or ''}".strip()
        for name, item in conditions.items()
        if item.get("status") != "True"
    ]
    return Rollout(Health.LATE, f"not ready; {'; '.join(waiting)[:600] or 'it says nothing yet'}")


def _read(api: Any, namespace: str, name: str) -> Mapping[str, Any] | None:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        found: Mapping[str, Any] = api.get_namespaced_custom_object(
            _GROUP, _VERSION, namespace, _PLURAL, name, _request_timeout=_ASK_SECONDS
        )
    except ApiException as problem:
        if problem.status == 404:
            return None
        if problem.status in {401, 403}:
            what = f"the cluster does not let us read {_PLURAL} in {namespace} ({problem.status})"
            fix = f"allow get on {_PLURAL}.{_GROUP} in that namespace"
            raise DeploymentError(what, where=f"{namespace}/{name}", fix=fix) from None
        what = f"the cluster answers {problem.status} {problem.reason}"
        raise OutsideError(what, where=f"{namespace}/{name}", fix="run again") from None
    except HTTPError as problem:
        what = f"the cluster does not answer: {problem}"
        raise OutsideError(what, where=f"{namespace}/{name}", fix="see whether kubectl reaches it") from None
    return found
