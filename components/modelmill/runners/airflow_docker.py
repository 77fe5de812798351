"""A step as a container on the machine of its Airflow worker: the backend ``docker`` of a deployment.

Imported only where a deployment asks for it: a cluster's Airflow needs no Docker provider.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.providers.docker.exceptions import DockerContainerFailedException, DockerContainerFailedSkipException
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from docker.types import DeviceRequest

from modelmill.core.errors import InputError
from modelmill.deployment import Deployment
from modelmill.runners import engine, owned, sight
from modelmill.runners.containers import KILLED, Container, words_of_exit, worth_another_attempt

POINTER_FILE = "/tmp/modelmill/pointer.json"
"""Any user of an image may write there."""
_API_SECONDS = 300
"""For one answer of the engine, which is slow where the machine is busy."""
_REMOVED = {"never": "force", "failed": "success", "always": "never"}
_CODE = re.compile(r"'StatusCode': (\d+)")
"""In the provider's own words for a container that failed."""
_FINAL = [code for code in range(1, 256) if not worth_another_attempt(code)]
"""Exit codes that another attempt would end with, too."""


class StepDockerOperator(DockerOperator):
    """A step as a container: retried where something outside failed, and failed for good where its input is wrong.

    Args:
        store: The store; a directory is made where it is not there yet.
        secret_names: Environment variables of the worker that the container gets.
        memory: What the container is held to, as the deployment says it.
        given: Further arguments of DockerOperator.
    """

    # The provider reads what a container left behind with this module's `load`; its own choice, pickle, runs code.
    pickling_library = json
    # What is mounted is a path, whatever stands in it; and no argument is the name of a file with a template.
    template_fields = tuple(name for name in DockerOperator.template_fields if name != "mounts")
    template_ext = ()

    def __init__(self, *, store: str, secret_names: Sequence[str], memory: str, **given: Any) -> None:
        super().__init__(**given)
        self._store, self._secret_names, self._memory = store, tuple(secret_names), memory

    def execute(self, context: Any) -> Any:
        """Run the container, as the provider does, and tell apart why it failed."""
        self._private_environment = sight.secret_values(self._secret_names)
        try:
            # The provider's own client: to open another one takes podman half a second.
            self.image: str = engine.find_image(self.cli, self.image)
            # What is mounted is the worker's, and what is written shall be.
            self.user = engine.user_of(self.cli)
            sight.make_store(self._store)
            return super().execute(context)
        except DockerContainerFailedException as problem:
            found = _CODE.search(str(problem))
            code = int(found[1]) if found else 1
            what = f"{self.task_id} {words_of_exit(code, f'memory {self._memory}')}"
            if code > KILLED:
                # What was killed could not say it itself: a runner on this machine passes this on as its words.
                self.log.error(what)
            raise AirflowException(what) from problem
        except DockerContainerFailedSkipException as problem:
            # The provider tells codes apart in one way alone: it would skip these.
            what = f"{self.task_id} failed, and another attempt would, too: its log says why"
            raise AirflowFailException(what) from problem
        except InputError as problem:
            raise AirflowFailException(str(problem)) from None
        except engine.failures() as problem:
            what = f"the container engine at {self.docker_url} does not do what it was asked to: {problem}"
            raise AirflowException(what) from problem


def operator(
    container: Container, deployment: Deployment, command: list[str], env: Mapping[str, str], **shared: Any
) -> StepDockerOperator:
    """The operator of a task.

    Args:
        container: The task.
        deployment: Where it runs.
        command: Its command line, as Airflow's templates.
        env: Its environment variables, as Airflow's templates.
        shared: What every operator takes.
    """
    mounts = [sight.bind(path, written=written) for path, written in sight.binds(deployment).items()]
    gpus = [DeviceRequest(count=container.accelerators, capabilities=[["gpu"]])] if container.accelerators else None
    return StepDockerOperator(
        store=deployment.store,
        secret_names=[item.name for item in container.secrets],
        memory=container.resources.memory,
        image=container.image,
        command=command,
        environment=dict(env),
        mounts=mounts,
        # As a number: Docker's units are others than Kubernetes'.
        mem_limit=container.resources.memory_bytes,
        device_requests=gpus,
        network_mode="host",
        mount_tmp_dir=False,
        timeout=_API_SECONDS,
        api_version=engine.spoken_version(),
        labels={"modelmill.task": container.id, **owned.label()},
        auto_remove=_REMOVED[deployment.keep_pods],
        skip_on_exit_code=_FINAL,
        do_xcom_push=True,
        retrieve_output=True,
        retrieve_output_path=POINTER_FILE,
        **shared,
    )
