"""Where an orchestrator shows what a task found: in the task's log, or as artifacts on Kubeflow's pages.

Kubeflow hands a container its *executor input*: one JSON document that says where each output goes. What is shown
becomes metadata of output artifacts, which the container writes into the file that this document names, or the
artifact's own content (kubeflow/pipelines, api/v2alpha1/pipeline_spec.proto: ExecutorInput, ExecutorOutput).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelmill.core.contract import JSON
from modelmill.core.errors import UsageError
from modelmill.core.progress import Progress
from modelmill.runners.containers import LOG, Shown
from modelmill.runners.findings import Findings, Matrix

Show = Callable[[Findings], None]
_MOUNTS = {"s3://": "/s3/", "minio://": "/minio/", "gs://": "/gcs/"}
"""An artifact's address → where the backend takes its content from (component/launcher_v2.go, LocalPathForURI)."""


def shower(kinds: Sequence[Shown], place: str, progress: Progress) -> Show | None:
    """What is given findings and shows those kinds of them, or None where nothing is to be shown.

    Args:
        kinds: What to show.
        place: ``log``, or Kubeflow's executor input.
        progress: The log.

    Raises:
        UsageError: The place is neither.
    """
    if not kinds:
        return None
    if place == LOG:
        return lambda findings: _to_log(findings, kinds, progress)
    outputs = _outputs(place)
    return lambda findings: _to_kubeflow(findings, kinds, outputs)


def _to_log(findings: Findings, kinds: Sequence[Shown], progress: Progress) -> None:
    # A matrix and a page are no lines of a log; the report's address is in the log already.
    if Shown.METRICS in kinds and findings.metrics:
        progress.fact(f"metrics: {json.dumps(findings.metrics)}")


def _outputs(executor_input: str) -> Mapping[str, Any]:
    try:
        outputs = json.loads(executor_input)["outputs"]
        outputs["outputFile"]
    except (ValueError, LookupError, TypeError):
        what = "it is neither 'log' nor an executor input of Kubeflow"
        raise UsageError(what, where="--show-in", fix="start this task as the compiled pipeline does") from None
    found: Mapping[str, Any] = outputs
    return found


def _to_kubeflow(findings: Findings, kinds: Sequence[Shown], outputs: Mapping[str, Any]) -> None:
    told: dict[str, JSON] = {}
    for kind in kinds:
        artifacts = outputs.get("artifacts", {}).get(kind.value, {}).get("artifacts") or []
        if not artifacts:
            continue
        artifact = dict(artifacts[0])
        if kind is Shown.METRICS:
            artifact["metadata"] = {**artifact.get("metadata", {}), **findings.metrics}
        elif kind is Shown.CONFUSION and findings.confusion is not None:
            artifact["metadata"] = {**artifact.get("metadata", {}), "confusionMatrix": _matrix(findings.confusion)}
        elif kind is Shown.REPORT and findings.page is not None:
            path = artifact_path(artifact)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(findings.page, "utf-8")
        told[kind.value] = {"artifacts": [artifact]}
    file = Path(outputs["outputFile"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"artifacts": told}), "utf-8")


def artifact_path(artifact: Mapping[str, Any]) -> Path:
    """Where the content of an executor input's output artifact is written."""
    if artifact.get("customPath"):
        return Path(artifact["customPath"])
    uri: str = artifact["uri"]
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return Path(mount + uri.removeprefix(scheme))
    return Path(uri)


def _matrix(found: Matrix) -> JSON:
    return {
        "annotationSpecs": [{"displayName": label} for label in found.labels],
        "rows": [{"row": list(row)} for row in found.cells],
    }
