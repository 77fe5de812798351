"""What containers on this machine see of it: the store, the recipe's sources, and the credentials of who starts them.

All paths are mounted where they are, so that a path means the same inside and outside.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from modelmill.core.signature import KEY_VARIABLE
from modelmill.core.store import Store
from modelmill.deployment import Backend, Deployment, SecretEnv
from modelmill.line import Job
from modelmill.runners import engine
from modelmill.runners.containers import describe
from modelmill.steps.fetch.sources.package import distribution_of
from modelmill.steps.publish.contract import RELEASE_VARIABLES

_NO_RUN = "none"
_CREDENTIALS = "AWS_"
"""What a client of S3 reads from the environment begins with it."""


@contextmanager
def on_this_machine(job: Job, store: Store) -> Iterator[Job]:
    """The job with a deployment for containers of this machine.

    The deployment's images, limits and step settings stay. Sources are mounted to be read; what ``package:`` names is
    found through PYTHONPATH; a secret is the environment variable of the same name.

    Args:
        job: The recipe, and the deployment as written.
        store: Where artifacts live; a directory is mounted to be written.

    Raises:
        StoreError: The store does not answer.
    """
    deployment = job.deployment
    # A store that is away or refuses is told here once, and not by each container.
    store.read(f"runs/{_NO_RUN}.json")
    with TemporaryDirectory(prefix="modelmill-packages-") as folder:
        # The container's user may be another than ours.
        Path(folder).chmod(0o755)
        # A home that any user may write to: the image's own belongs to its own user.
        env, mounts = {"HOME": "/tmp", **deployment.env}, [*(deployment.mounts or []), *_files(job)]
        packages = _packages(job, Path(folder))
        if packages:
            env["PYTHONPATH"] = folder
            mounts += [folder, *packages]
        for variable, path in _credential_files():
            env[variable] = path
            mounts.append(path)
        named = {*env, *(item.name for item in [*deployment.secrets, *deployment.release_secrets])}
        given = [name for name in sorted(os.environ) if name not in named]
        credentials = [name for name in given if name.startswith(_CREDENTIALS)]
        release = [name for name in given if name.startswith(RELEASE_VARIABLES)]
        changes = {
            "backend": Backend.DOCKER,
            "store": store.uri,
            "mounts": list(dict.fromkeys(mounts)),
            "env": env,
            # As for the local runner: who started it starts it again, and it goes on.
            "retries": 0,
            "steps": {name: own.model_copy(update={"retries": None}) for name, own in deployment.steps.items()},
            "secrets": [*deployment.secrets, *(_from_environment(name) for name in credentials)],
            "release_secrets": [*deployment.release_secrets, *(_from_environment(name) for name in release)],
        }
        yield Job(job.located, deployment.model_copy(update=changes), job.run)


def _from_environment(name: str) -> SecretEnv:
    return SecretEnv(name=name, secret="environment", key=name)


def _credential_files() -> Iterator[tuple[str, str]]:
    """The files in which a client of S3 looks for credentials, by the variable that names each."""
    for variable, usual in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")):
        path = Path(os.environ.get(variable) or Path.home() / ".aws" / usual)
        if path.is_file():
            yield variable, str(path.resolve())


def with_images(job: Job, client: Any) -> Job:
    """The job with each image that its line runs in as the engine of a client names it; pulled where it is not there.

    Raises:
        DeploymentError: One is neither there nor to be pulled.
    """
    named = dict.fromkeys(container.image for container in describe(job).containers)
    found = {name: engine.find_image(client, name) for name in named}
    deployment = job.deployment
    changes = {
        "images": {device: found.get(name, name) for device, name in deployment.images.items()},
        "steps": {
            step: own.model_copy(update={"image": found.get(own.image, own.image)}) if own.image else own
            for step, own in deployment.steps.items()
        },
    }
    return Job(job.located, deployment.model_copy(update=changes), job.run)


def binds(deployment: Deployment) -> dict[str, bool]:
    """The paths of this machine that a container sees where they are, and whether it may write there."""
    found = dict.fromkeys(deployment.mounts or [], False)
    remote = deployment.git.remote.removeprefix("file://") if deployment.git else ""
    if _is_directory(remote):
        found[remote] = True
    return {**found, deployment.store: True} if _is_directory(deployment.store) else found


def make_store(store: str) -> None:
    """Make a store's directory: an engine binds no path that is not there."""
    if _is_directory(store):
        Path(store).mkdir(parents=True, exist_ok=True)


def _is_directory(store: str) -> bool:
    return Path(store).is_absolute()


def secret_values(names: Iterable[str]) -> dict[str, str]:
    """The values of secrets on this machine: environment variables, those that are set.

    Of a signing key that is named by its path it is the key itself: no container has the file.
    """
    found = {name: os.environ[name] for name in names if name in os.environ}
    key = Path(found.get(KEY_VARIABLE) or os.devnull)
    # What cannot be read, or is the key already, is for publish to take or to refuse.
    with contextlib.suppress(OSError, ValueError):
        if key.is_file():
            found[KEY_VARIABLE] = key.read_text("utf-8")
    return found


def _files(job: Job) -> list[str]:
    sources = [job.located.source(source) for source in _sources(job)]
    paths = [Path(source.removeprefix("file:")) for source in sources if source.startswith("file:")]
    # One that does not exist is for the step fetch to report.
    return [str(path) for path in paths if path.exists()]


def _sources(job: Job) -> tuple[str, str]:
    return job.recipe.model.source, job.recipe.data.source


def _packages(job: Job, folder: Path) -> list[str]:
    """The directories of the packages that are sources; ``folder`` gets a link to each, as a path for imports."""
    found: list[str] = []
    for source in _sources(job):
        if not source.startswith("package:"):
            continue
        name = source.removeprefix("package:").split("/")[0]
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        # One that is not installed is for the step fetch to report.
        for location in (spec.submodule_search_locations or []) if spec else []:
            found += [str(path) for path in (Path(location), *_distribution(name)) if _linked(path, folder)]
    return found


def _linked(path: Path, folder: Path) -> bool:
    link = folder / path.name
    if not link.is_symlink():
        link.symlink_to(path)
    return path.exists()


def _distribution(package: str) -> list[Path]:
    """Where the installer wrote down what belongs to a package."""
    found = distribution_of(package)
    records = [file for file in (found.files if found else None) or [] if file.name == "RECORD"]
    return [Path(str(file.locate())).parent for file in records]
