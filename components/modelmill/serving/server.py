"""A real Triton on this machine: found in an environment of its own, started, and ended with us.

The PyPI package nvidia-pytriton carries NVIDIA's ``tritonserver`` with the Python backend. What the backend runs a
``model.py`` with is the Python environment that the package is installed in, as in a serving image.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from modelmill.core.errors import DeploymentError, OutsideError
from modelmill.serving.client import Client

VARIABLE = "MODELMILL_TRITON"
"""Names the environment's folder: the one that `make install-triton` makes, or an image's."""
PACKAGE = "nvidia-pytriton"
NEEDED = (PACKAGE, "numpy", "onnxruntime", "tokenizers")
_START_SECONDS = 120
_END_SECONDS = 20
_LOG_LINES = 15
_WITH_US = (
    'exec 3<&0; { read -r _ <&3; trap "" TERM; kill -- -$$; sleep 10; kill -s KILL -- -$$; } & '
    'exec "$@" 3<&- </dev/null'
)
"""Runs a program whose group is ended when the other end of its standard input closes: we are gone.

The whole group: a server alone waits for its backend's processes, up to half a minute where one hangs."""


@dataclass(frozen=True)
class Installation:
    """Where a server lies.

    Attributes:
        folder: The environment.
        site: Its packages.
        packages: Versions of what matters in it.
    """

    folder: Path
    site: Path
    packages: Mapping[str, str]

    @property
    def words(self) -> str:
        """One line for a step key: other versions may answer otherwise."""
        return ", ".join(f"{name} {version}" for name, version in self.packages.items())


def find() -> Installation | None:
    """The server that the environment variable names; None where it names none. Light: nothing is started.

    Raises:
        DeploymentError: What it names holds no server, or lacks what a model.py needs.
    """
    named = os.environ.get(VARIABLE, "").strip()
    if not named:
        return None
    folder = Path(named).expanduser().absolute()
    fix = f"name the folder that make install-triton made, or unset {VARIABLE}"
    sites = sorted(folder.glob("lib/python3.*/site-packages"))
    if not sites:
        what = f"{VARIABLE} names no Python environment: {folder}"
        raise DeploymentError(what, where=VARIABLE, fix=fix)
    packages = {}
    for name in NEEDED:
        found = next(iter(metadata.distributions(name=name, path=[str(sites[0])])), None)
        if found is None:
            what = f"the environment that {VARIABLE} names has no {name}: {folder}"
            raise DeploymentError(what, where=VARIABLE, fix=fix)
        packages[name] = found.version
    return Installation(folder, sites[0], packages)


@contextmanager
def serve(installation: Installation, repository: Path, model: str) -> Iterator[str]:
    """The address of a server of a model repository, which has loaded its models or said why not.

    Args:
        installation: The server.
        repository: The folder with the models.
        model: One of them, whose loading is waited for.

    Raises:
        DeploymentError: The server does not start; its last words are told.
    """
    with tempfile.TemporaryDirectory(prefix="modelmill-triton-") as work, contextlib.ExitStack() as stack:
        port, log = _free_port(), Path(work) / "log"
        command = [
            str(installation.site / "pytriton/tritonserver/bin/tritonserver"),
            "--model-repository", str(repository),
            "--backend-directory", str(_backends(installation, Path(work))),
            "--http-address", "127.0.0.1",
            "--http-port", str(port),
            "--allow-grpc=false",
            "--allow-metrics=false",
            "--disable-auto-complete-config",
            # A model that does not load is this smoke test's finding, not the server's end.
            "--exit-on-error=false",
            "--exit-timeout-secs=5",
        ]  # fmt: skip
        with log.open("wb") as stream:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _WITH_US, "triton", *command],
                env=_environment(installation, Path(work)),
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                cwd=work,
                # Ctrl-C is ours to answer, and the backend's own processes end with the group.
                process_group=0,
            )
        stack.callback(_end, process)
        address = f"http://127.0.0.1:{port}"
        _wait(process, address, model, log)
        yield address


def _backends(installation: Installation, work: Path) -> Path:
    """The Python backend with the stub of the environment's Python, laid out as the server wants it."""
    server = installation.site / "pytriton/tritonserver"
    version = installation.site.parent.name.removeprefix("python")
    backend = work / "backends" / "python"
    backend.mkdir(parents=True)
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        what = f"this {PACKAGE} has no stub for Python {version}"
        raise DeploymentError(what, where=VARIABLE, fix="make the environment with Python 3.11")
    for path in (*(server / "backends/python").iterdir(), stub):
        (backend / path.name).symlink_to(path)
    return backend.parent


def _environment(installation: Installation, work: Path) -> dict[str, str]:
    """No variable of ours but what programs need: the server runs a model, which needs no secret."""
    python = str(installation.folder / "bin" / "python")
    ask = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    libraries = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False).stdout.strip()
    # The stub embeds Python, which finds its environment by the first python3 of the path.
    return {
        "PATH": f"{installation.folder / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": ":".join(filter(None, [str(installation.site / "nvidia_pytriton.libs"), libraries])),
        "HOME": str(work),
        "TMPDIR": str(work),
        "LC_ALL": "C.UTF-8",
    }


def _wait(process: subprocess.Popen[bytes], address: str, model: str, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    with Client(address, model, seconds=5) as client:
        while process.poll() is None and time.monotonic() < end:
            if client.ready():
                return
            with contextlib.suppress(OutsideError):
                if client.failed() is not None:
                    return
            time.sleep(0.1)
    last = "\n".join(log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:])
    how = f"ended with code {process.returncode}" if process.poll() is not None else "does not answer"
    what = f"the Triton that {VARIABLE} names {how}: {last}"
    raise DeploymentError(
        what, where=VARIABLE, fix="see whether it starts by itself; make install-triton makes it anew"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
