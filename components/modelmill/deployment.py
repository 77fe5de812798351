"""The deployment: where the line runs. Never part of a step key."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from modelmill.core.contract import Closed, Zone
from modelmill.core.documents import read_mapping, validate
from modelmill.core.errors import DeploymentError
from modelmill.steps.publish.gitops_settings import GitOps

Quantity = Annotated[
    str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$", description="as Kubernetes has it")
]


class Toleration(Closed):
    """A taint that a pool's nodes have."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Pool(Closed):
    """Nodes of one kind."""

    node_selector: dict[str, str] = Field(default_factory=dict, description="labels that a node must have")
    tolerations: list[Toleration] = Field(default_factory=list)
    accelerator: str | None = Field(None, description="the extended resource of its GPUs: nvidia.com/gpu")


class Resources(Closed):
    """What a step's container asks for, and is held to."""

    cpu: Quantity = Field("2", description="cores, requested and the limit: threads follow the limit")
    memory: Quantity = Field("8Gi", description="requested and the limit")


class SecretEnv(Closed):
    """An environment variable from a secret that exists."""

    name: str = Field(description="the environment variable")
    secret: str = Field(description="the secret's name")
    key: str = Field(description="the key in the secret")


class Backend(StrEnum):
    """What runs a DAG's containers."""

    KUBERNETES = "kubernetes"
    DOCKER = "docker"
    """The container engine of the Airflow worker's machine: mounts are bound read-only, a directory store for writing,
    and a secret is the worker's environment variable of the same name."""


class Prices(Closed):
    """What computing costs."""

    core_hour: float = Field(gt=0, description="of one CPU core for one hour")
    currency: str = Field("USD", pattern="^[A-Z]{3}$", description="ISO 4217")


class StepDeployment(Closed):
    """What holds for one step; what is left out is as for all steps."""

    resources: Resources | None = None
    timeout_minutes: int | None = Field(None, ge=1)
    retries: int | None = Field(None, ge=0, le=20)
    image: str | None = None


class Deployment(Closed):
    """What a platform engineer decides."""

    store: str = Field(".modelmill", description="where artifacts live: a directory, or s3://BUCKET/PREFIX")
    mounts: list[str] | None = Field(
        None,
        description="directories that file: sources may lie in; left out, any may be read (one machine, one user). "
        "A pod has those of its image",
    )
    backend: Backend = Field(
        Backend.KUBERNETES, description="whether a DAG's tasks are pods, or containers on the machine of its worker"
    )
    namespace: str = Field("modelmill", description="the Kubernetes namespace of the steps' pods")
    images: dict[Annotated[str, Field(pattern="^(cpu|gpu|light)$")], str] = Field(
        default_factory=lambda: {"cpu": "modelmill-cpu:0.1.0", "gpu": "modelmill-gpu:0.1.0"},
        description="device → container image; light, where it is given, for the tasks that need no "
        "framework (begin, gate, decide, publish, finish), in place of cpu",
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pools: dict[str, Pool] = Field(
        default_factory=lambda: {"cpu": Pool(), "gpu": Pool(accelerator="nvidia.com/gpu")},
        description="device → the nodes that its steps run on",
    )
    resources: Resources = Field(default_factory=lambda: Resources.model_validate({}), description="of every step")
    retries: int = Field(2, ge=0, le=20, description="attempts after the first, where something outside failed")
    retry_seconds: int = Field(30, ge=1, description="wait before the first retry; it doubles")
    timeout_minutes: int = Field(240, ge=1, description="of one attempt of a step")
    start_minutes: int = Field(
        15,
        ge=1,
        description="how long Airflow lets a pod wait for a node, and then for its image, before it fails: a pool that "
        "grows from nothing takes minutes",
    )
    steps: dict[str, StepDeployment] = Field(default_factory=dict, description="step, as the line names it → its own")
    env: dict[str, str] = Field(default_factory=dict, description="environment of every step; no secrets")
    secrets: list[SecretEnv] = Field(default_factory=list, description="environment of every step from secrets")
    release_secrets: list[SecretEnv] = Field(
        default_factory=list,
        description="the same for the steps that may write the registry, and no other; in place of one of that name",
    )
    git: GitOps | None = Field(
        None,
        description="the Git repository of Kustomize overlays that promotions are committed to; credentials come from "
        "release_secrets (on this machine from the environment): MODELMILL_GIT_USERNAME, _TOKEN, _SSH_KEY, "
        "_SIGNING_KEY, _API_TOKEN",
    )
    service_accounts: dict[Zone, str] = Field(
        default_factory=lambda: {Zone.UNTRUSTED: "modelmill-work", Zone.RELEASE: "modelmill-release"},
        description="trust zone → service account",
    )
    prices: Prices | None = Field(
        None,
        description="what computing costs where the model will serve: the gate's max_cost_per_million_texts needs it",
    )
    keep_pods: Literal["never", "failed", "always"] = Field("failed", description="which pods stay to be looked at")


def load(path: Path | None) -> Deployment:
    """Read a deployment file; without one, this machine with the store ``.modelmill``.

    Raises:
        DeploymentError: The file is wrong.
    """
    if path is None:
        return Deployment()
    return validate(Deployment, read_mapping(path, DeploymentError, "deployment"), str(path), DeploymentError)
