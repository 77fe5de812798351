"""A step as a pod of Airflow's Kubernetes provider: what it may do, and what its end means.

A pod is as the Pod Security Standards' profile "restricted" wants it, its root file system is read-only besides, and
it holds no token for the cluster's API.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.secret import Secret
from airflow.providers.cncf.kubernetes.utils.xcom_sidecar import PodDefaults
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from kubernetes.client import models as k8s

from modelmill.deployment import Deployment
from modelmill.runners.containers import KILLED, WRITABLE, Container, words_of_exit, worth_another_attempt

POINTER_FILE = "/airflow/xcom/return.json"
"""Where the provider's sidecar reads what a pod tells."""
_FINISH_ACTIONS = {"never": "delete_pod", "failed": "delete_succeeded_pod", "always": "keep_pod"}
_SIDECAR = {"cpu": "50m", "memory": "64Mi"}
"""Requested and the limit: a quota refuses a pod of which one container has none."""


class StepPodOperator(KubernetesPodOperator):
    """A step as a pod: retried where something outside failed, and failed for good where its input is wrong."""

    # No argument is the name of a file with a template.
    template_ext = ()

    def __init__(self, **given: Any) -> None:
        restricted = k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
            read_only_root_filesystem=True,
            run_as_non_root=True,
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        )
        super().__init__(
            security_context={"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            container_security_context=restricted,
            xcom_sidecar_container_security_context=restricted,
            automount_service_account_token=False,
            volumes=[k8s.V1Volume(name=name, empty_dir=k8s.V1EmptyDirVolumeSource()) for name in WRITABLE],
            volume_mounts=[k8s.V1VolumeMount(name=name, mount_path=path) for name, path in WRITABLE.items()],
            # What a failure means is said by `cleanup`; the whole pod beside it would only hide it.
            log_pod_spec_on_failure=False,
            log_events_on_failure=True,
            **given,
        )

    def build_pod_request_obj(self, *args: Any, **given: Any) -> Any:
        """The pod; the container beside the step, which hands its pointer over, is of the step's own image.

        The provider's default is one more image, which not every cluster can pull; this one is on the node anyway.
        """
        pod = super().build_pod_request_obj(*args, **given)
        step = pod.spec.containers[0]
        for container in pod.spec.containers:
            if container.name == PodDefaults.SIDECAR_CONTAINER_NAME:
                container.image, container.image_pull_policy = step.image, step.image_pull_policy
                container.resources = k8s.V1ResourceRequirements(requests=dict(_SIDECAR), limits=dict(_SIDECAR))
        return pod

    def cleanup(self, pod: Any, remote_pod: Any, *args: Any, **given: Any) -> None:
        """End the pod, as the provider does, and say why it failed.

        Raises:
            AirflowException: Another attempt may do.
            AirflowFailException: It would not.
        """
        try:
            super().cleanup(pod, remote_pod, *args, **given)
        except AirflowSkipException:
            raise
        except AirflowException as problem:
            found = failure(remote_pod, self.base_container_name)
            if not found.ended:
                # It would start after all when a node is free, beside the attempt that follows.
                self.pod_manager.delete_pod(remote_pod)
            kind = AirflowException if found.again else AirflowFailException
            what = f"{self.task_id} {found.what}"
            raise kind(what) from problem


def operator(
    container: Container, deployment: Deployment, command: list[str], env: Mapping[str, str], **shared: Any
) -> StepPodOperator:
    """The operator of a task.

    Args:
        container: The task.
        deployment: Where it runs.
        command: Its command line, as Airflow's templates.
        env: Its environment variables, as Airflow's templates.
        shared: What every operator takes.
    """
    accelerators = {container.pool.accelerator: str(container.accelerators)} if container.pool.accelerator else {}
    resources = {"cpu": container.resources.cpu, "memory": container.resources.memory, **accelerators}
    return StepPodOperator(
        name=re.sub(r"[^a-z0-9-]+", "-", container.id.lower()),
        namespace=deployment.namespace,
        image=container.image,
        image_pull_policy=container.pull_policy,
        cmds=command,
        env_vars=dict(env),
        secrets=[Secret("env", item.name, item.secret, item.key) for item in container.secrets],
        service_account_name=container.service_account,
        labels=dict(container.labels),
        container_resources=k8s.V1ResourceRequirements(requests=dict(resources), limits=dict(resources)),
        node_selector=dict(container.pool.node_selector),
        tolerations=[k8s.V1Toleration(**item.model_dump(exclude_none=True)) for item in container.pool.tolerations],
        active_deadline_seconds=60 * container.timeout_minutes,
        schedule_timeout_seconds=60 * deployment.start_minutes,
        startup_timeout_seconds=60 * deployment.start_minutes,
        # A retry that took over its predecessor's pod would take over what broke it.
        reattach_on_restart=False,
        on_finish_action=_FINISH_ACTIONS[deployment.keep_pods],
        deferrable=True,
        do_xcom_push=True,
        **shared,
    )


class Failure(NamedTuple):
    """Why a pod failed."""

    what: str
    """What is wrong and what to do, to follow a task's name."""
    again: bool
    """Whether another attempt may go better."""
    ended: bool
    """Whether its step has ended, or can never start."""


def failure(pod: Any, container: str) -> Failure:
    """Why a pod failed, by what Kubernetes tells of it.

    Args:
        pod: A V1Pod.
        container: The name of the container that is the step.
    """
    status = pod.status
    ended = status.phase in {"Failed", "Succeeded"}
    state = next((item.state for item in status.container_statuses or [] if item.name == container), None)
    if state and state.terminated:
        return _of_code(state.terminated, pod, container)
    if state and state.waiting and state.waiting.reason not in {None, "ContainerCreating", "PodInitializing"}:
        return _of_waiting(state.waiting, pod, container)
    if status.reason or ended:
        what = f"was ended by Kubernetes before its step was ({_told(status) or 'no reason given'})"
        return Failure(what, again=True, ended=ended)
    unscheduled = next(
        (item for item in status.conditions or [] if item.type == "PodScheduled" and item.status != "True"), None
    )
    if unscheduled:
        labels = ", ".join(f"{label}={value}" for label, value in sorted((pod.spec.node_selector or {}).items()))
        what = (
            f"got no node in time ({unscheduled.message or unscheduled.reason}). It asks for {_limits(pod, container)}"
            f"{f' on nodes with {labels}' if labels else ''}: hold the deployment's pools and resources against the "
            "cluster's nodes and quota; start_minutes is how long a pod waits"
        )
        return Failure(what, again=True, ended=False)
    what = "did not start or end in time (start_minutes, timeout_minutes in the deployment): its events say why"
    return Failure(what, again=True, ended=ended)


def _of_code(end: Any, pod: Any, container: str) -> Failure:
    code = KILLED + signal.SIGKILL if end.reason == "OOMKilled" else end.exit_code
    return Failure(words_of_exit(code, _limits(pod, container)), again=worth_another_attempt(code), ended=True)


def _of_waiting(waiting: Any, pod: Any, container: str) -> Failure:
    told = _told(waiting)
    if "Image" in waiting.reason:
        image = _step(pod, container).image
        what = f"could not start, for its image {image} is not to be had ({told}): check the deployment's images"
        again = waiting.reason not in {"InvalidImageName", "ErrImageNeverPull"}
        return Failure(what, again=again, ended=False)
    what = f"could not start ({told}): check the secrets and the image that the deployment names"
    return Failure(what, again=True, ended=False)


def _told(state: Any) -> str:
    """Reason and message on one line."""
    return " ".join(": ".join(text for text in (state.reason, state.message) if text).split())


def _limits(pod: Any, container: str) -> str:
    resources = _step(pod, container).resources
    limits = (resources.limits if resources else None) or {"resources": "without limits"}
    return ", ".join(f"{name} {value}" for name, value in sorted(limits.items()))


def _step(pod: Any, container: str) -> Any:
    return next(item for item in pod.spec.containers if item.name == container)
