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
from typing import Any

from modelmill.core import temporary
from modelmill.core.errors import DeploymentError
from modelmill.core.signer import KEY_VARIABLE
from modelmill.core.store import Store
from modelmill.deployment import Backend, Deployment, SecretEnv
from modelmill.line import Job
from modelmill.runners import engine, owned
from modelmill.runners.containers import describe
from modelmill.steps.fetch.sources.package import distribution_of
from modelmill.steps.publish.contract import RELEASE_VARIABLES

_NO_RUN = "none"
_CREDENTIALS = "AWS_"
"""What a client of S3 reads from the environment begins with it."""
_PASSED = frozenset(
    {
        *("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    }
)
"""What else a source reads from there; a proxy's name is in small letters, too. Each may hold a secret."""
_FILES = {
    "AWS_SHARED_CREDENTIALS_FILE": ".aws/credentials",
    "AWS_CONFIG_FILE": ".aws/config",
    "AWS_CA_BUNDLE": "",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "",
    "HF_TOKEN_PATH": ".cache/huggingface/token",
    "SSL_CERT_FILE": "",
    "SSL_CERT_DIR": "",
    "REQUESTS_CA_BUNDLE": "",
}
"""A variable that names a file, and where below the home it is looked for otherwise; empty: nowhere."""
_SEPARATORS = frozenset(",:")
"""What stands between the parts of a bind where an engine writes it down as a text, as podman does."""


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
    with temporary.folder("packages") as folder:
        # The container's user may be another than ours.
        folder.chmod(0o755)
        # A home that any user may write to: the image's own belongs to its own user.
        env, mounts = {"HOME": "/tmp", **deployment.env}, [*(deployment.mounts or []), *_files(job)]
        packages = _packages(job, folder)
        if packages:
            env["PYTHONPATH"] = str(folder)
            mounts += [str(folder), *packages]
        secret = {item.name for item in [*deployment.secrets, *deployment.release_secrets]}
        for variable, path in _named_files():
            if variable not in secret:
                env[variable] = path
                mounts.append(path)
        named = {*env, *secret}
        given = [name for name in sorted(os.environ) if name not in named]
        passed = [name for name in given if name.startswith(_CREDENTIALS) or name.upper() in _PASSED]
        release = [name for name in given if name.startswith(RELEASE_VARIABLES)]
        changes = {
            "backend": Backend.DOCKER,
            "store": store.uri,
            "mounts": list(dict.fromkeys(mounts)),
            "env": env,
            # As for the local runner: who started it starts it again, and it goes on.
            "retries": 0,
            "steps": {name: own.model_copy(update={"retries": None}) for name, own in deployment.steps.items()},
            "secrets": [*deployment.secrets, *(_from_environment(name) for name in passed)],
            "release_secrets": [*deployment.release_secrets, *(_from_environment(name) for name in release)],
        }
        yield Job(job.located, deployment.model_copy(update=changes), job.run)


def _from_environment(name: str) -> SecretEnv:
    return SecretEnv(name=name, secret="environment", key=name)


def _named_files() -> Iterator[tuple[str, str]]:
    """The files that a client of S3 or of the Hub looks for, by the variable that names each."""
    for variable, usual in _FILES.items():
        named = os.environ.get(variable)
        path = Path(named).expanduser() if named else Path.home() / usual if usual else None
        if path is not None and path.exists():
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


def check_binds(job: Job, client: Any) -> None:
    """Check that the engine of a client binds the paths that a job's containers see.

    Raises:
        DeploymentError: It does not.
    """
    odd = [path for path in binds(job.deployment) if set(path) & _SEPARATORS]
    if not odd:
        # Asking podman takes a third of a second.
        return
    make_store(job.deployment.store)
    image = describe(job).containers[0].image
    for path in odd:
        settings = client.create_host_config(mounts=[bind(path, written=False)])
        try:
            made = client.create_container(image, ["true"], host_config=settings, labels=owned.label())
        except engine.client_library().errors.APIError as problem:
            what = f"the container engine cannot bind {path!r}: {problem.explanation}"
            raise DeploymentError(what, where=path, fix="move it to a path without commas and colons") from None
        client.remove_container(made["Id"], force=True)


def bind(path: str, *, written: bool) -> Any:
    """A path of this machine where it is, as Docker's client library takes it: no text, in which a colon separates."""
    return engine.client_library().types.Mount(path, path, type="bind", read_only=not written)


def binds(deployment: Deployment) -> dict[str, bool]:
    """The paths of this machine that a container sees where they are, and whether it may write there."""
    found = dict.fromkeys(deployment.mounts or [], False)
    remote = deployment.git.remote.removeprefix("file://") if deployment.git else ""
    if _is_directory(remote):
        found[remote] = True
    trusted = deployment.keyless.trust_config if deployment.keyless else None
    if trusted and Path(trusted).is_absolute():
        found[trusted] = False
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
