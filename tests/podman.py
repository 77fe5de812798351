"""Images built and containers run for real, by podman. There is no registry: the base image comes from debootstrap."""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BASE = "localhost/modelmill-test-base:bookworm"
_BUILDING = Path(tempfile.gettempdir()) / "modelmill-tests-building.lock"
TIME = "--timestamp=315532800"
"""The time of all files, as `make images` has it."""
_CONF = """
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def _tag(image: str) -> str:
    """A tag of its own for every state of an image's source: an image is never taken for that of another state."""
    digest = hashlib.sha256()
    folders = (ROOT / "images" / image, ROOT / "components" / "modelmill")
    for file in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        if "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(ROOT)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return f"localhost/modelmill-{image}:test-{digest.hexdigest()[:12]}"


CPU, LIGHT = _tag("cpu"), _tag("light")


class Podman:
    """podman with settings of its own, which a machine needs that has neither systemd nor crun, or low limits of files.

    Attributes:
        settings: The file that holds them, for the variable CONTAINERS_CONF.
    """

    def __init__(self, folder: Path) -> None:
        self.settings = folder / "containers.conf"
        self.settings.write_text(_CONF, "utf-8")
        self._environment = {**os.environ, "CONTAINERS_CONF": str(self.settings)}
        # Where podman is started, its monitor leaves a file "oom" for a container that ran out of memory.
        self._folder = folder

    def __call__(self, *arguments: str | Path, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run podman."""
        return subprocess.run(
            ["podman", *(str(item) for item in arguments)],
            env=self._environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start podman with pipes."""
        command = ["podman", *(str(item) for item in arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self._environment, cwd=self._folder, stdin=pipe, stdout=pipe, stderr=pipe)

    def base(self, folder: Path) -> str:
        """The base image: Debian with its Python 3.11."""
        if self("image", "exists", BASE).returncode != 0:
            root = folder / "root"
            command = ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"]
            subprocess.run([*command, "bookworm", str(root)], check=True, capture_output=True)
            shutil.rmtree(root / "var" / "cache" / "apt", ignore_errors=True)
            subprocess.run(["tar", "-C", str(root), "-cf", str(folder / "base.tar"), "."], check=True)
            imported = self("import", folder / "base.tar", BASE)
            assert imported.returncode == 0, imported.stderr
            shutil.rmtree(root)
            (folder / "base.tar").unlink()
        return BASE

    def image(self, tag: str, folder: Path) -> str:
        """`CPU` or `LIGHT`: built unless it is there, or is being built by tests in another process."""
        with self.building():
            if self("image", "exists", tag).returncode != 0:
                name = tag.removeprefix("localhost/modelmill-").split(":")[0]
                self.build(ROOT / "images" / name / "Dockerfile", tag, self.base(folder), TIME)
        return tag

    @contextmanager
    def building(self) -> Iterator[None]:
        """Let one process at a time build what others want, too."""
        with _BUILDING.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def build(self, dockerfile: Path, tag: str, base: str, *options: str) -> str:
        """An image; pip inside finds packages where pip on this machine does."""
        arguments: list[str | Path] = ["--network=host", "--build-arg", f"BASE_IMAGE={base}", *options]
        for certificates in _of_pip("cert")[:1]:
            arguments += ["-v", f"{certificates}:/run/build-ca.crt:ro", "--build-arg", "PIP_CERT=/run/build-ca.crt"]
        wheels = [path for path in _of_pip("find-links") if Path(path).is_dir()]
        if wheels:
            arguments += [item for path in wheels for item in ("-v", f"{path}:{path}:ro")]
            arguments += ["--build-arg", f"PIP_FIND_LINKS={' '.join(wheels)}"]
        built = self("build", *arguments, "-f", dockerfile, "-t", tag, ROOT, timeout=1500)
        assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
        return tag


def _of_pip(setting: str) -> list[str]:
    """What pip's configuration and environment on this machine say, each word once."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.read_string("[all]\n" + listed.replace(":env:.", "env."))
    values = [value.strip("'") for name, value in parser["all"].items() if name.endswith(f".{setting}")]
    return list(dict.fromkeys(path for value in values for path in value.split()))


def require_podman(folder: Path) -> Podman:
    """podman, or a skip that names what is missing; a failure under MODELMILL_REQUIRE_ALL=1."""
    missing = [name for name in ("podman", "runc", "debootstrap") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        what = f"no {missing[0]}: apt install podman runc debootstrap" if missing else "images are built as root here"
        if os.environ.get("MODELMILL_REQUIRE_ALL") == "1":
            pytest.fail(what)
        pytest.skip(what)
    return Podman(folder)
