"""The container engine of this machine: whatever answers Docker's API, podman included.

Docker's client library is imported where an engine is needed, so that everything else loads without it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelmill.core.errors import DeploymentError, OutsideError, UsageError

ADDRESS_VARIABLE, VERSION_VARIABLE = "DOCKER_HOST", "DOCKER_API_VERSION"
_START_SECONDS = 30
_WITH_US = 'exec 3<&0; { read -r _ <&3; kill $$; rm -rf -- "$0"; } & exec "$@" 3<&- </dev/null'
"""Runs a program that ends, and whose folder goes, when the other end of its standard input closes: we are gone.

podman has no such option: it can only end after a time without requests, which a silent training has, too."""


def client_library() -> Any:
    """The module ``docker``.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import docker
    except ImportError:
        what = "running containers on this machine needs the Python package docker, which is not installed here"
        raise UsageError(what, fix="pip install 'modelmill[kubeflow]'") from None
    return docker


def failures() -> tuple[type[Exception], ...]:
    """What Docker's client library raises where an engine refuses, or is gone.

    Raises:
        UsageError: It is not installed.
    """
    library = client_library()
    # Not at the top: they come with the library.
    import requests  # type: ignore[import-untyped]
    import urllib3

    return (
        library.errors.DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        # From a socket that the library reads by itself.
        ConnectionResetError,
    )


def failed(problem: Exception) -> OutsideError:
    """One of `failures` in words."""
    said = getattr(problem, "explanation", None)
    what = f"refuses what it was asked: {said}" if said else f"is gone, or does not answer ({type(problem).__name__})"
    fix = "see whether it runs a container by itself, then run again: no finished step is lost"
    return OutsideError(f"the container engine {what}", where=os.environ.get(ADDRESS_VARIABLE), fix=fix)


@contextmanager
def client(address: str, seconds: float = 60) -> Iterator[Any]:
    """Docker's plain client of an engine, each of whose answers may take ``seconds``."""
    made = client_library().APIClient(base_url=address, version=spoken_version(), timeout=seconds)
    with contextlib.closing(made) as found:
        yield found


def spoken_version() -> str | None:
    """The version of Docker's API that is to be spoken; None where the engine has not been asked yet."""
    return os.environ.get(VERSION_VARIABLE)


@contextmanager
def engine() -> Iterator[str]:
    """The address of a container engine; where no daemon answers, podman serves for as long as the block runs.

    The variable DOCKER_HOST holds it meanwhile, which is where other libraries look, and DOCKER_API_VERSION the version
    that it speaks: podman takes half a second to say it to each client that asks.

    Raises:
        UsageError: Docker's client library is not installed.
        OutsideError: DOCKER_HOST names an engine that does not answer, or there is none; or it refuses what the block
            asks, or goes away meanwhile.
    """
    expected = failures()
    named = os.environ.get(ADDRESS_VARIABLE)
    with contextlib.ExitStack() as stack:
        if named and not _answers(named):
            what = f"no container engine answers at {named}"
            raise OutsideError(what, where=ADDRESS_VARIABLE, fix="start it, or unset the variable")
        address = named or next((at for at in _usual_addresses() if _answers(at)), None)
        if address is None:
            address = stack.enter_context(_podman())
        with client(address) as found:
            variables = {ADDRESS_VARIABLE: address, VERSION_VARIABLE: found.api_version}
        for variable, value in variables.items():
            if variable not in os.environ:
                os.environ[variable] = value
                stack.callback(os.environ.pop, variable, None)
        try:
            yield address
        except expected as problem:
            raise failed(problem) from None


def _usual_addresses() -> list[str]:
    sockets = [Path("/var/run/docker.sock"), Path(f"/run/user/{os.getuid()}/podman/podman.sock")]
    return [f"unix://{path}" for path in sockets if _listens(path)]


def _listens(path: Path) -> bool:
    """Whether anybody takes connections there; Docker's client library forgets to close one that is refused."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _answers(address: str, seconds: float = 10) -> bool:
    try:
        with client(address, seconds) as found:
            return bool(found.ping())
    except (client_library().errors.DockerException, OSError):
        return False


@contextmanager
def _podman() -> Iterator[str]:
    program = shutil.which("podman")
    if program is None:
        what = "there is no container engine on this machine"
        raise OutsideError(what, fix=f"start Docker, install podman, or let {ADDRESS_VARIABLE} name an engine")
    with tempfile.TemporaryDirectory(prefix="modelmill-podman-") as folder:
        path, log = Path(folder) / "podman.sock", Path(folder) / "log"
        address = f"unix://{path}"
        with log.open("wb") as stream:
            service = subprocess.Popen(
                ["/bin/sh", "-c", _WITH_US, folder, program, "system", "service", "--time", "0", address],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                # Where it is started, its monitor leaves a file "oom" for a container that ran out of memory.
                cwd=folder,
                # Ctrl-C is ours to answer: a container is removed through the service before it ends.
                process_group=0,
            )
        try:
            end = time.monotonic() + _START_SECONDS
            while service.poll() is None and time.monotonic() < end and not _listens(path):
                time.sleep(0.05)
            if not _listens(path) or not _answers(address, _START_SECONDS):
                what = f"podman's service did not start: {log.read_text(errors='replace').strip()[-500:]}"
                raise OutsideError(what, fix="see whether podman run works by itself")
            yield address
        finally:
            # With the shell that watches over it; both are its group.
            os.killpg(service.pid, signal.SIGTERM)
            service.wait()
            assert service.stdin is not None
            service.stdin.close()


def find_image(engine_client: Any, name: str) -> str:
    """An image's name as the engine of a client has it; pulled where it is not there yet.

    Raises:
        DeploymentError: It is neither there nor to be pulled.
    """
    docker = client_library()
    # podman puts what is built under a short name below localhost/.
    for candidate in (name, f"localhost/{name}"):
        # Some engines answer "not found" to a name that is malformed, some "bad request", and podman an internal error.
        with contextlib.suppress(docker.errors.APIError, docker.errors.NullResource):
            engine_client.inspect_image(candidate)
            return candidate
    try:
        _pull(engine_client, name)
    except (docker.errors.APIError, docker.errors.NullResource) as problem:
        said = getattr(problem, "explanation", None) or problem
        what = f"the image {name!r} is not on this machine and cannot be pulled: {said}"
        fix = "build it (make images), or name one that is there"
        raise DeploymentError(what, where="deployment: images", fix=fix) from None
    return name


def _pull(engine_client: Any, name: str) -> None:
    docker = client_library()
    repository, tag = docker.utils.parse_repository_tag(name)
    for told in engine_client.pull(repository, tag or "latest", stream=True, decode=True):
        # The answer has begun well by then: what goes wrong afterwards is told in it.
        if "error" in told:
            raise docker.errors.APIError(told["error"], explanation=told["error"])


def user_of(engine_client: Any) -> str:
    """``UID:GID`` that makes a container's files ours: in a rootless engine that is the container's root."""
    if os.getuid() == 0:
        # The same either way, and podman takes a third of a second to say which.
        return "0:0"
    rootless = any("rootless" in option for option in engine_client.info().get("SecurityOptions") or [])
    return "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"
