"""Node and packages of npm's, for what is loaded in browsers."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from helm import cache, missing


def require_node() -> Path:
    """Node 20 or later; a test without it is skipped, or fails under MODELMILL_REQUIRE_ALL=1."""
    node = shutil.which("node")
    if node is None:
        missing("no node, which runs transformers.js")
    return Path(str(node))


def node_modules(package: str) -> Path:
    """A folder in which ``package`` (NAME@VERSION) is installed, once, without running its scripts."""
    folder = cache() / package.replace("/", "-").removeprefix("@")
    if not (folder / "node_modules").is_dir():
        npm = shutil.which("npm")
        if npm is None:
            missing(f"no npm, by which {package} is downloaded")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            command = [str(npm), "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", package]
            ended = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False, timeout=280)
            if ended.returncode != 0:
                missing(f"{package} cannot be had (npm install): {ended.stderr.strip()[-300:]}")
            shutil.rmtree(folder, ignore_errors=True)
            Path(made).rename(folder)
            # The context removes a folder by its name.
            Path(made).mkdir()
    return folder
