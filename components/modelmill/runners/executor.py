"""What Kubeflow tells a container about its task, and what a container tells Kubeflow's pages.

A component is given ``{{$}}``, the task's ``ExecutorInput`` as JSON; what it writes to ``outputs.outputFile`` is an
``ExecutorOutput``: values of output parameters, and metadata of output artifacts, which is how metrics show.
Source: kubeflow/pipelines, api/v2alpha1/pipeline_spec.proto.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmill.core.contract import JSON
from modelmill.core.errors import UsageError

_MOUNTS = {"s3://": "/s3/", "minio://": "/minio/", "gs://": "/gcs/"}
"""An artifact's address → where the backend takes its content from (component/launcher_v2.go, LocalPathForURI)."""
LONGEST_WORDS = 200
"""Signs of a fact that travels with an orchestrator's own messages."""


class Executor:
    """A task as Kubeflow describes it to its container.

    Args:
        text: ``ExecutorInput`` as JSON.

    Raises:
        UsageError: It is something else.
    """

    def __init__(self, text: str) -> None:
        try:
            document = json.loads(text)
            self._outputs: dict[str, Any] = document["outputs"]
            self._file = Path(self._outputs["outputFile"])
            self.parameters: dict[str, JSON] = document.get("inputs", {}).get("parameterValues", {})
        except (ValueError, TypeError, KeyError, AttributeError):
            what = "this is no ExecutorInput of Kubeflow Pipelines 2"
            raise UsageError(what, where="--executor-input", fix="pass {{$}} in the component's arguments") from None

    def path(self, name: str) -> Path | None:
        """Where the content of an output artifact is written; None where the task has none of this name."""
        found = self._outputs.get("artifacts", {}).get(name, {}).get("artifacts")
        return artifact_path(found[0]) if found else None

    def write(self, parameters: Mapping[str, JSON], metadata: Mapping[str, Mapping[str, JSON]]) -> None:
        """Tell Kubeflow what the task found.

        Args:
            parameters: Output parameter → value; those that the task does not have are left out.
            metadata: Output artifact → its metadata; those that the task does not have are left out.
        """
        artifacts = {}
        for name, found in self._outputs.get("artifacts", {}).items():
            artifact = found["artifacts"][0]
            artifact["metadata"] = {**artifact.get("metadata", {}), **metadata.get(name, {})}
            artifacts[name] = {"artifacts": [artifact]}
        known = self._outputs.get("parameters", {})
        told = {"parameterValues": {name: value for name, value in parameters.items() if name in known}}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps({**told, "artifacts": artifacts}, allow_nan=False), "utf-8")


def artifact_path(artifact: Mapping[str, Any]) -> Path:
    """Where the content of an executor input's output artifact is written."""
    if artifact.get("customPath"):
        return Path(artifact["customPath"])
    uri: str = artifact["uri"]
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return Path(mount + uri.removeprefix(scheme))
    return Path(uri)


def small_facts(facts: Mapping[str, JSON], prefix: str = "") -> dict[str, JSON]:
    """A step's numbers, words and answers by dotted name; lists and long texts are left to the store."""
    found: dict[str, JSON] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            found |= small_facts(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) or (isinstance(value, str) and len(value) <= LONGEST_WORDS):
            found[prefix + name] = value
    return found


def numbers_of(facts: Mapping[str, JSON]) -> dict[str, JSON]:
    """The numbers among a step's facts, by dotted name."""
    found = small_facts(facts)
    return {name: value for name, value in found.items() if not isinstance(value, bool | str)}
