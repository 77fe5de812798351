"""The compiled pipeline on this machine: kfp's own local runner, its containers on this machine's engine."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from modelmill.core import temporary
from modelmill.core.errors import OutsideError
from modelmill.core.progress import Progress
from modelmill.core.store import Store
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners import engine, kubeflow, owned, sight
from modelmill.runners.conclusion import ended, failed, interrupted
from modelmill.runners.containers import KILLED, Described, describe, words_of_exit
from modelmill.runners.result import RunDocument, safe_name

_TASK, _RUN_OPTION = 2, "--run"
"""Where a container's command line names the task and the run."""


def run(job: Job, store: Store, progress: Progress) -> RunDocument:
    """Run a recipe's line as its compiled pipeline; each task is a container.

    Args:
        job: The recipe, and the deployment whose images and steps hold here, too.
        store: Where artifacts live.
        progress: Where to report to.

    Returns:
        The finished run: promoted, refused or inconclusive.

    Raises:
        ModelmillError: As the task that failed raised it; OutsideError where the run left no record.
    """
    kfp = kubeflow.library()
    with engine.engine() as address, sight.on_this_machine(job, store) as here, engine.client(address) as client:
        here = sight.with_images(here, client)
        sight.check_binds(here, client)
        described = describe(here)
        with temporary.folder("kubeflow") as root, temporary.folder("kubeflow") as workspace:
            containers = _Containers(described, here.deployment, engine.user_of(client), progress)
            # What kfp and the containers print is progress, and stdout is for results.
            with contextlib.redirect_stdout(sys.stderr), containers.replacing(address), warnings.catch_warnings():
                # That this machine's limits hold and not the deployment's is documented, and not news for each task.
                warnings.filterwarnings("ignore", message=".*have no effect in the current local runner.*")
                kfp.local.init(
                    runner=kfp.local.DockerRunner(),
                    pipeline_root=str(root),
                    workspace_root=str(workspace),
                    raise_on_error=False,
                )
                try:
                    with owned.owning(client):
                        kubeflow.pipeline_of(described)()
                        if containers.problem:
                            raise containers.problem
                except KeyboardInterrupt:
                    interrupted(store, containers.stored_run)
                    raise
                except OutsideError as problem:
                    failed(store, containers.stored_run, problem)
                    raise
    return ended(store, containers.stored_run, "what is printed above")


class _OpenEngine:
    """The engine as kfp asks for it in each task: podman takes a second and a half to say its version and settings."""

    def __init__(self, address: str) -> None:
        self._client = engine.client_library().DockerClient(base_url=address, version=engine.spoken_version())
        self.containers = self._client.containers
        self._info = self._client.info()

    def info(self) -> Any:
        """Its settings."""
        return self._info

    def close(self) -> None:
        """Nothing: the next task asks for it again."""

    def end(self) -> None:
        """Close it."""
        self._client.close()


class _Containers:
    """How a container is run: kfp's own way lets the engine remove it before anybody has asked how it ended."""

    def __init__(self, described: Described, deployment: Deployment, user: str, progress: Progress) -> None:
        self._secrets = {item.id: [secret.name for secret in item.secrets] for item in described.containers}
        sight.make_store(deployment.store)
        self._mounts = [sight.bind(path, written=written) for path, written in sight.binds(deployment).items()]
        self._user, self._progress = user, progress
        self.run: str | None = None
        """The orchestrator's name for the run, once a container was told it."""
        self.problem: OutsideError | None = None
        """What the engine did first that it was not asked to."""

    @property
    def stored_run(self) -> str | None:
        """The run's name in the store."""
        return safe_name(self.run) if self.run else None

    @contextmanager
    def replacing(self, address: str) -> Iterator[None]:
        """Stand in for kfp's function while the block runs, with one client for all tasks."""
        from kfp.local import docker_task_handler

        docker, opened = engine.client_library(), _OpenEngine(address)
        originals = docker_task_handler.run_docker_container, docker.from_env
        docker_task_handler.run_docker_container, docker.from_env = self, lambda: opened
        try:
            yield
        finally:
            docker_task_handler.run_docker_container, docker.from_env = originals
            opened.end()

    def __call__(
        self,
        client: Any,
        image: str,
        command: list[str],
        volumes: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Run a container to its end and say how it ended, as kfp's function of this name."""
        self.run = command[command.index(_RUN_OPTION) + 1]
        try:
            return self._ended(client, image, command, volumes, environment or {})
        except engine.failures() as problem:
            # kfp goes on to the task that writes how the run ended, which may find the engine as it should be.
            self.problem = self.problem or engine.failed(problem)
            return OutsideError.exit_code

    def _ended(
        self,
        client: Any,
        image: str,
        command: list[str],
        volumes: Mapping[str, Any],
        environment: Mapping[str, str],
    ) -> int:
        task = command[_TASK]
        container = client.containers.create(
            image,
            command,
            volumes=dict(volumes),
            mounts=self._mounts,
            environment={**environment, **sight.secret_values(self._secrets[task])},
            network_mode="host",
            user=self._user,
            labels={"modelmill.run": safe_name(str(self.run)), **owned.label()},
        )
        try:
            # Attached before the start: a request for the log would time out where a container is silent for a minute.
            output = container.attach(stdout=True, stderr=True, stream=True)
            container.start()
            for piece in output:
                sys.stderr.write(piece.decode(errors="replace"))
            code = int(container.wait()["StatusCode"])
        finally:
            # Also after Ctrl-C: a container that nobody waits for would go on. An engine that is gone removes none now.
            with contextlib.suppress(*engine.failures()):
                container.remove(force=True)
        if code:
            words = words_of_exit(code, None) if code > KILLED else f"ended with exit code {code}"
            self._progress.fact(f"{task}: its container {words}")
        return code
