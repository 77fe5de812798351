"""The deployment: where the line runs. Never part of a step key."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.config import JsonDict

from modelmill.core.contract import Closed, Zone
from modelmill.core.documents import read_mapping, validate
from modelmill.core.errors import DeploymentError
from modelmill.steps.publish.contract import RELEASE_VARIABLES
from modelmill.steps.publish.gitops_settings import GitOps
from modelmill.steps.publish.mirror_settings import Mirrors
from modelmill.steps.publish.sign_settings import Keyless

# What Kubernetes, Kubeflow's compiler and a container engine all take; what one of them refuses is refused here.
_SUBDOMAIN = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_WORD = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_PATH_PART = r"[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*"
Cores = Annotated[
    str,
    Field(pattern=r"^([1-9][0-9]{0,3}(\.[0-9]{1,3})?|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9])|[1-9][0-9]{0,6}m)$"),
]
Memory = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,6}(Mi|Gi|Ti|M|G|T)$")]
Image = Annotated[
    str,
    Field(
        # REGISTRY/NAME:TAG@DIGEST, as github.com/distribution/reference has it.
        pattern=rf"^(([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]+)?/)?{_PATH_PART}(/{_PATH_PART})*"
        r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
    ),
]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
ObjectName = Annotated[str, Field(pattern=rf"^{_SUBDOMAIN}$")]
LabelKey = Annotated[str, Field(pattern=rf"^({_SUBDOMAIN}/)?{_WORD}$")]
LabelValue = Annotated[str, Field(pattern=rf"^({_WORD})?$")]
Minutes = Annotated[int, Field(ge=1, le=5_256_000)]
"""Ten years at most: Kubernetes counts an attempt's seconds in 31 bits."""
_SECRET = (
    rf"^({'|'.join(RELEASE_VARIABLES)}|(AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN|HF_TOKEN|HUGGING_FACE_HUB_TOKEN)$)"
)
"""Names of variables whose values are secrets, whoever reads them."""
_BYTES = {"Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "M": 10**6, "G": 10**9, "T": 10**12}


def _without_secrets(schema: JsonDict) -> None:
    """Say in the schema of variables, too, which have no value here."""
    named = schema["patternProperties"]
    assert isinstance(named, dict)
    # The one value that is taken is what helm says of every other.
    named[_SECRET] = {"const": "left out here: use secrets: or release_secrets: for it"}


class Toleration(Closed):
    """A taint that a pool's nodes have."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"operator": {"const": "Equal"}}, "required": ["operator"]},
                {"properties": {"value": {"type": "null"}}},
            ]
        }
    )

    key: LabelKey
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @model_validator(mode="after")
    def _exists_has_no_value(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            problem = "Exists tolerates every value: leave the value out, or write operator: Equal"
            raise ValueError(problem)
        return self


class Pool(Closed):
    """Nodes of one kind."""

    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict, description="labels that a node must have")
    tolerations: list[Toleration] = Field(default_factory=list)
    accelerator: str | None = Field(
        None, pattern=rf"^{_SUBDOMAIN}/{_WORD}$", description="the extended resource of its GPUs: nvidia.com/gpu"
    )


class Resources(Closed):
    """What a step's container asks for, and is held to."""

    cpu: Cores = Field(
        "2",
        description="cores (2, 1.5 or 500m), requested and the limit: threads follow the limit. The backend docker "
        "holds no container to it",
    )
    memory: Memory = Field("8Gi", description="a whole number of Mi, Gi, Ti, M, G or T, requested and the limit")

    @property
    def memory_bytes(self) -> int:
        """The memory as a number."""
        unit = self.memory.lstrip("0123456789")
        return int(self.memory.removesuffix(unit)) * _BYTES[unit]


class SecretEnv(Closed):
    """An environment variable from a secret that exists."""

    name: Variable = Field(description="the environment variable")
    secret: ObjectName = Field(description="the secret's name")
    key: str = Field(pattern="^[A-Za-z0-9._-]{1,253}$", description="the key in the secret")


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
    timeout_minutes: Minutes | None = None
    retries: int | None = Field(None, ge=0, le=20)
    image: Image | None = None


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
    namespace: str = Field(
        "modelmill",
        pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="the Kubernetes namespace of the steps' pods",
    )
    images: dict[Annotated[str, Field(pattern="^(cpu|gpu|light)$")], Image] = Field(
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
    retry_seconds: int = Field(30, ge=1, le=86_400, description="wait before the first retry; it doubles")
    timeout_minutes: Minutes = Field(240, description="of one attempt of a step")
    start_minutes: Minutes = Field(
        15,
        description="how long Airflow lets a pod wait for a node, and then for its image, before it fails: a pool that "
        "grows from nothing takes minutes",
    )
    steps: dict[str, StepDeployment] = Field(default_factory=dict, description="step, as the line names it → its own")
    env: dict[Variable, str] = Field(
        default_factory=dict,
        description="environment of every step; no secrets",
        json_schema_extra=_without_secrets,
    )
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
    keyless: Keyless | None = Field(
        None,
        description="who signs bundles without a key, by Sigstore; the token comes from release_secrets (on this "
        "machine from the environment), MODELMILL_SIGNING_TOKEN, or from the platform",
    )
    mirrors: Mirrors | None = Field(
        None,
        description="where registrations are told besides the registry; credentials come from release_secrets (on this "
        "machine from the environment): MODELMILL_MIRROR_MLFLOW_USERNAME, _MLFLOW_PASSWORD, _MLFLOW_TOKEN, _HUB_TOKEN",
    )
    service_accounts: dict[Zone, ObjectName] = Field(
        default_factory=lambda: {Zone.UNTRUSTED: "modelmill-work", Zone.RELEASE: "modelmill-release"},
        description="trust zone → service account",
    )
    prices: Prices | None = Field(
        None,
        description="what computing costs where the model will serve: the gate's max_cost_per_million_texts needs it",
    )
    keep_pods: Literal["never", "failed", "always"] = Field("failed", description="which pods stay to be looked at")

    @field_validator("env")
    @classmethod
    def _env_holds_no_secret(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if re.match(_SECRET, name):
                field = "release_secrets" if name.startswith(RELEASE_VARIABLES) else "secrets"
                problem = f"the variable {name} is a secret: use {field}, which name where it is"
                raise ValueError(problem)
        return value

    @field_validator("secrets", "release_secrets")
    @classmethod
    def _names_are_apart(cls, value: list[SecretEnv]) -> list[SecretEnv]:
        names = [item.name for item in value]
        for name in names:
            if names.count(name) > 1:
                problem = f"the variable {name} is named twice"
                raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _variables_have_one_source(self) -> Deployment:
        for item in [*self.secrets, *self.release_secrets]:
            if item.name in self.env:
                problem = f"the variable {item.name} is in env and a secret: take it out of one of them"
                raise ValueError(problem)
        return self

    @field_validator("service_accounts")
    @classmethod
    def _each_zone_has_one(cls, value: dict[Zone, str]) -> dict[Zone, str]:
        missing = [zone.value for zone in Zone if zone not in value]
        if missing:
            problem = f"each trust zone has a service account, and {' and '.join(missing)} has none here"
            raise ValueError(problem)
        return value


def load(path: Path | None) -> Deployment:
    """Read a deployment file; without one, this machine with the store ``.modelmill``.

    Raises:
        DeploymentError: The file is wrong.
    """
    if path is None:
        return Deployment()
    return validate(Deployment, read_mapping(path, DeploymentError, "deployment"), str(path), DeploymentError)
