"""What an orchestrator runs: one container for each task of the line, in words that belong to no orchestrator.

`describe` is the one place that renders a task's command line. The Kubeflow pipeline and the Airflow DAG are bindings
of what it returns, and each binding can be read back into it, which is how their equality is proven.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from modelmill.core.contract import Closed, StepContract, Zone
from modelmill.core.errors import DeploymentError, OutsideError, UsageError
from modelmill.core.history import IMAGE_VARIABLE
from modelmill.core.s3_address import parse_store
from modelmill.deployment import Backend, Deployment, Pool, Resources, SecretEnv
from modelmill.line import Job, Task, TaskOutput, expand, require_prices
from modelmill.runners.parameters import Parameter, encoded, parameters_of, path_word, relative_sources
from modelmill.steps.gate import contract as gate

BEGIN, DECIDE, FINISH = "begin", "decide", "finish"
RECIPE_VARIABLE = "MODELMILL_RECIPE"
"""Holds the recipe for `BEGIN`, encoded so that no orchestrator takes a text in it for a template."""
GIT_VARIABLE = "MODELMILL_GIT"
"""The same for the deployment's Git repository, in publish alone; no secret is in it."""
MIRRORS_VARIABLE = "MODELMILL_MIRRORS"
"""The same for its mirrors."""
KEYLESS_VARIABLE = "MODELMILL_KEYLESS"
"""The same for who signs without a key."""
SETTINGS_VARIABLE = "MODELMILL_SETTINGS"
"""The same for the settings of a step that is run by itself."""
KILLED = 128
"""Exit codes above are a signal's number more than this."""
STEP_LABEL, ZONE_LABEL = "modelmill.dev/step", "modelmill.dev/zone"
"""By which a cluster's policies tell the pods apart."""

WRITABLE = {"tmp": "/tmp", "work": "/work"}
"""The folders that a container may write, by the name of the volume in each; its root file system is read-only.

``/work`` is the home of the image's user, with the cache of an S3 store in it."""


LOG = "log"
"""The `ShowPlace` of an orchestrator that has no page for it."""


def worth_another_attempt(exit_code: int) -> bool:
    """Whether what ended so may go better: something outside failed, or it was killed. A wrong input stays wrong."""
    return exit_code == OutsideError.exit_code or exit_code > KILLED


def words_of_exit(exit_code: int, limits: str | None) -> str:
    """What the exit code of a task's container means, to follow the task's name.

    Args:
        exit_code: Other than 0.
        limits: What the container is held to; None where that is what its machine has.
    """
    if exit_code == KILLED + signal.SIGKILL:
        what = f"was killed, with exit code {exit_code}, most likely for want of memory"
        more = f": it has {limits}; give it more by steps.NAME.resources.memory in the deployment"
        return what + (more if limits else " on this machine")
    if exit_code > KILLED:
        return f"was killed by signal {exit_code - KILLED}"
    if exit_code == OutsideError.exit_code:
        return f"ended with exit code {exit_code}: something outside failed; its log says what"
    return f"ended with exit code {exit_code}, and another attempt would, too: its log says why"


class Shown(StrEnum):
    """What a task has for people beside its log."""

    METRICS = "metrics"
    """Small numbers."""
    CONFUSION = "confusion"
    """A confusion matrix of the candidate."""
    REPORT = "report"
    """A page that needs nothing else."""


@dataclass(frozen=True)
class Given:
    """The value of a run's parameter."""

    parameter: str


@dataclass(frozen=True)
class Pointer:
    """What another task said when it ended: a step key, a digest or a verdict; or that its lane is unavailable."""

    task: str


@dataclass(frozen=True)
class RunName:
    """The orchestrator's name for the run."""


@dataclass(frozen=True)
class PointerFile:
    """The file in which the orchestrator looks for this task's pointer."""


@dataclass(frozen=True)
class ShowPlace:
    """Where the orchestrator shows people what this task found."""


Part = str | Given | Pointer | RunName | PointerFile | ShowPlace
Argument = tuple[Part, ...]
"""One argument; its parts stand together without a space."""


@dataclass(frozen=True)
class Container:
    """One task as a container.

    Attributes:
        id: ``export.cpu-int8``.
        title: For people.
        lane: The target's name, or None outside of lanes.
        image: The container image.
        arguments: The whole command.
        env: Environment variables.
        secrets: Environment variables from secrets.
        shows: What people are shown of it; the arguments say so, too.
        after: Tasks that it waits for.
        only_if_promoted: Runs only where `DECIDE` said ``pass``; skipped otherwise.
        always: Runs last, however the others ended.
        pool: Where it runs.
        accelerators: GPUs.
        resources: Cores and memory.
        retries: Attempts after the first.
        retry_seconds: Wait before the first of them; it doubles.
        timeout_minutes: Of one attempt.
        pull_policy: Of the image.
        service_account: Its identity.
        labels: Of its pod.
    """

    id: str
    title: str
    lane: str | None
    image: str
    arguments: tuple[Argument, ...]
    env: Mapping[str, str]
    secrets: Sequence[SecretEnv]
    shows: tuple[Shown, ...]
    after: tuple[str, ...]
    only_if_promoted: bool
    always: bool
    pool: Pool
    accelerators: int
    resources: Resources
    retries: int
    retry_seconds: int
    timeout_minutes: int
    pull_policy: str
    service_account: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Described:
    """A recipe's line as containers."""

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    containers: tuple[Container, ...] = field(default_factory=tuple)


def describe(job: Job) -> Described:
    """The containers of a recipe's line, each after those that feed it.

    Raises:
        DeploymentError: The deployment names a step that is not in the line, or lacks a device's image or pool.
    """
    recipe, deployment = job.recipe, job.deployment
    _check_store(deployment)
    _check_env(deployment)
    require_prices(job)
    tasks = expand(job)
    known = [task.contract.id for task in tasks] + [BEGIN, DECIDE, FINISH]
    for name in deployment.steps:
        if name not in known:
            what = f"steps.{name} is no step of the line"
            raise DeploymentError(what, where="deployment", fix=f"the steps are: {', '.join(dict.fromkeys(known))}")
    parameters = parameters_of(recipe)
    containers = [_begin(job, parameters)]
    gates = [task.id for task in tasks if task.contract.name == "gate"]
    for task in tasks:
        if task.node.requires_verdicts:
            containers.append(_decide(job, gates))
        containers.append(_task(job, task))
    containers.append(_finish(job))
    summary = f"{recipe.name}: from fetch to publish for {', '.join(target.name for target in recipe.targets)}"
    return Described(recipe.name, summary, parameters, tuple(containers))


def _begin(job: Job, parameters: Sequence[Parameter]) -> Container:
    sets = [argument for item in parameters for argument in (("--set",), (f"{item.path}=", Given(item.name)))]
    env = {RECIPE_VARIABLE: encoded(job.recipe)}
    return _container(job.deployment, BEGIN, "Check the recipe and the run's parameters", (*sets,), env=env)


def _task(job: Job, task: Task) -> Container:
    arguments: list[Argument] = []
    for port, feed in task.feeds.items():
        named = {port: feed} if isinstance(feed, TaskOutput) else {f"{port}.{lane}": at for lane, at in feed.items()}
        arguments += [
            argument
            for name, at in named.items()
            for argument in (("--input",), (f"{name}=", Pointer(at.task), f"#{at.port}"))
        ]
    if task.contract.name == "fetch":
        arguments += [word for mount in job.deployment.mounts or [] for word in (("--mount",), (path_word(mount),))]
        if relative_sources(job.recipe):
            arguments += [("--folder",), (path_word(str(job.located.folder)),)]
    if task.target is not None:
        arguments += [("--attempts",), (str(1 + _retries(job.deployment, task.contract.id)),)]
    priced = task.settings
    if isinstance(priced, gate.Settings) and priced.core_hour is not None:
        arguments += [("--core-hour",), (repr(priced.core_hour),), ("--currency",), (priced.currency,)]
    return _container(
        job.deployment,
        task.id,
        task.contract.summary,
        (("--recipe",), (Pointer(BEGIN),), *arguments),
        step=task.contract.id,
        lane=task.target.name if task.target else None,
        device=task.target.device.value if task.target and _on_device(task) else "cpu",
        light=task.contract.light and not (_releases(task) and _uploads(job.deployment)),
        env=_release_env(job.deployment) if _releases(task) else None,
        only_if_promoted=task.node.requires_verdicts,
        zone=task.contract.zone,
        shows=(Shown.METRICS, Shown.CONFUSION) if task.contract.name == "gate" else (),
    )


def _release_env(deployment: Deployment) -> dict[str, str]:
    """What the deployment says to publish alone."""
    told = {
        GIT_VARIABLE: deployment.git,
        MIRRORS_VARIABLE: deployment.mirrors,
        KEYLESS_VARIABLE: deployment.keyless,
    }
    return {name: encoded(found) for name, found in told.items() if found is not None}


def _uploads(deployment: Deployment) -> bool:
    """Whether publish needs the Hub's client, which the light image has not."""
    return deployment.mirrors is not None and deployment.mirrors.hub is not None


def describe_step(
    contract: StepContract,
    settings: Closed,
    inputs: Mapping[str, Part | Mapping[str, Part]],
    deployment: Deployment,
    task_id: str,
    device: str,
) -> Container:
    """A step by itself, in a pipeline that is not a recipe's.

    Args:
        contract: The step.
        settings: Its settings.
        inputs: Port → digest, or for a merge port lane → digest.
        deployment: Where it runs.
        task_id: What the pipeline calls it.
        device: Which of the deployment's images and pools.

    Raises:
        DeploymentError: No container finds the store, or there is no image or pool for the device.
    """
    _check_store(deployment)
    _check_env(deployment)
    arguments: list[Argument] = []
    for port, at in inputs.items():
        named = {f"{port}.{lane}": part for lane, part in at.items()} if isinstance(at, Mapping) else {port: at}
        arguments += [argument for name, part in named.items() for argument in (("--input",), (f"{name}=", part))]
    return _container(
        deployment,
        task_id,
        contract.summary,
        arguments,
        step=contract.id,
        device=device,
        light=contract.light,
        env={SETTINGS_VARIABLE: encoded(settings)},
        zone=contract.zone,
        head=(("modelmill",), ("step",), (contract.id,), ("--store",), (deployment.store,)),
    )


def _check_store(deployment: Deployment) -> None:
    """Check that a container finds the store."""
    store, where, fix = deployment.store, "deployment: store", "name s3://BUCKET/PREFIX (--store s3://…)"
    if store.startswith("s3:"):
        try:
            parse_store(store)
        except UsageError as problem:
            raise DeploymentError(problem.what, where=where, fix=problem.fix) from None
    elif "://" in store:
        what = f"a store cannot be opened by {store.partition(':')[0]}://"
        raise DeploymentError(what, where=where, fix=fix)
    elif not store.startswith("/"):
        what = f"the store {store} is a folder of this machine, which no container has"
        raise DeploymentError(what, where=where, fix=fix)
    elif deployment.backend is Backend.KUBERNETES:
        what = f"the store {store} is a folder, and each pod has a folder {store} of its own"
        raise DeploymentError(what, where=where, fix=f"{fix}; a directory is for backend: docker, on one machine")


def _check_env(deployment: Deployment) -> None:
    """Check that a deployment sets no variable that a task's container is told by."""
    for name in (RECIPE_VARIABLE, GIT_VARIABLE, SETTINGS_VARIABLE, IMAGE_VARIABLE):
        if name in deployment.env:
            what = f"env.{name} is what a task is told by, and not a deployment's to set"
            raise DeploymentError(what, where="deployment: env", fix="take it out")


def _on_device(task: Task) -> bool:
    """Whether the task computes with its target's runtime; a gate compares numbers, wherever they were taken."""
    return task.contract.name != "gate"


def _releases(task: Task) -> bool:
    return task.contract.zone is Zone.RELEASE


def _decide(job: Job, gates: Sequence[str]) -> Container:
    arguments = [argument for gate in gates for argument in (("--input",), (f"{gate}=", Pointer(gate), "#verdict"))]
    return _container(
        job.deployment, DECIDE, "Whether the lanes' verdicts promote", (("--recipe",), (Pointer(BEGIN),), *arguments)
    )


def _finish(job: Job) -> Container:
    # It waits for all others, which no argument says: what they found is in the run's record.
    return _container(
        job.deployment, FINISH, "Write the run's report and tell how it ended", (), always=True, shows=(Shown.REPORT,)
    )


def _container(
    deployment: Deployment,
    id: str,
    title: str,
    arguments: Sequence[Argument],
    *,
    step: str | None = None,
    lane: str | None = None,
    device: str = "cpu",
    light: bool = True,
    env: Mapping[str, str] | None = None,
    only_if_promoted: bool = False,
    always: bool = False,
    zone: Zone = Zone.UNTRUSTED,
    head: Sequence[Argument] | None = None,
    shows: tuple[Shown, ...] = (),
) -> Container:
    own = deployment.steps.get(step or id)
    for kind, table in (("images", deployment.images), ("pools", deployment.pools)):
        if device not in table:
            what = f"{kind} has no entry for the device {device}, on which {id} runs"
            raise DeploymentError(what, where="deployment", fix=f"add {kind}.{device}")
    pool = deployment.pools[device]
    task: Sequence[Argument] = [
        ("modelmill",),
        ("task",),
        (id,),
        ("--store",),
        (deployment.store,),
        ("--run",),
        (RunName(),),
    ]
    # Where publish has a secret of its own for a variable, the one that all steps have is no longer its.
    secrets = [*deployment.secrets, *(deployment.release_secrets if zone is Zone.RELEASE else [])]
    show: list[Argument] = [argument for kind in shows for argument in (("--show",), (kind.value,))]
    show += [("--show-in",), (ShowPlace(),)] if shows else []
    whole = (*(head or task), *arguments, *show, ("--pointer",), (PointerFile(),))
    pointed = [part.task for argument in whole for part in argument if isinstance(part, Pointer)]
    after = [*dict.fromkeys(pointed), *([DECIDE] if only_if_promoted else [])]
    image = (own.image if own else None) or _image(deployment, device, light=light)
    return Container(
        id=id,
        title=title,
        lane=lane,
        image=image,
        arguments=whole,
        env={**deployment.env, **(env or {}), IMAGE_VARIABLE: image},
        secrets=list({item.name: item for item in secrets}.values()),
        shows=shows,
        after=tuple(after),
        only_if_promoted=only_if_promoted,
        always=always,
        pool=pool,
        accelerators=1 if pool.accelerator else 0,
        resources=(own.resources if own else None) or deployment.resources,
        retries=_retries(deployment, step or id),
        retry_seconds=deployment.retry_seconds,
        timeout_minutes=(own.timeout_minutes if own else None) or deployment.timeout_minutes,
        pull_policy=deployment.pull_policy,
        service_account=deployment.service_accounts[zone],
        labels={STEP_LABEL: step or id, ZONE_LABEL: zone.value},
    )


def _retries(deployment: Deployment, step: str) -> int:
    """Attempts of a step after the first."""
    own = deployment.steps.get(step)
    return deployment.retries if own is None or own.retries is None else own.retries


def _image(deployment: Deployment, device: str, *, light: bool) -> str:
    """The device's image; the light one for what runs there, where the deployment has it."""
    usual = deployment.images[device]
    return deployment.images.get("light", usual) if light and device == "cpu" else usual
