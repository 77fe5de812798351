"""README's commands, typed in order in an empty directory; what they end in is the demo, and its figures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from browser import open_browser

README = Path(__file__).resolve().parents[2] / "README.md"

pytestmark = [pytest.mark.figures, pytest.mark.timeout(1800)]


@dataclass(frozen=True)
class Typed:
    """A command as README shows it, and how it ended."""

    command: str
    code: int
    output: str
    errors: str
    seconds: float


def _commands() -> list[str]:
    blocks = re.findall(r"<!-- tested -->\n```bash\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def _type(command: str, folder: Path) -> Typed:
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}
    started = time.monotonic()
    ended = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return Typed(command, ended.returncode, ended.stdout, ended.stderr, time.monotonic() - started)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def typed(folder: Path) -> list[Typed]:
    return [_type(command, folder) for command in _commands()]


@pytest.fixture(scope="module")
def run(typed: list[Typed], folder: Path) -> dict[str, Any]:
    """The demo's document."""
    shown: dict[str, Any] = json.loads(_type("modelmill runs show latest --json", folder).output)
    return shown


def test_every_command_of_the_readme_succeeds(typed: list[Typed]) -> None:
    assert any(item.command.startswith("modelmill run ") for item in typed)
    for item in typed:
        assert item.code == 0, f"{item.command}\n{item.output}\n{item.errors}"
        assert "Traceback" not in item.errors


def test_the_demo_is_promoted_within_eight_minutes_with_the_figures_of_the_readme(
    typed: list[Typed], run: dict[str, Any]
) -> None:
    took = next(item.seconds for item in typed if item.command.startswith("modelmill run "))
    lane = run["targets"]["cpu-int8"]
    cell = next(c for c in lane["latency"] if (c["batch_size"], c["sequence_length"]) == (1, 128))
    sys.stdout.write(
        f"\ndemo: {took:.0f} s; accuracy {lane['baseline']:.4f} → {lane['candidate']:.4f}, drop"
        f" {lane['drop_points']:.2f} {lane['drop_points_ci']} points; size {lane['size_ratio']:.4f};"
        f" speed-up {cell['speedup']:.2f} {cell['speedup_ci']}\n"
    )
    assert run["status"] == "promoted"
    assert took < 480
    assert lane["baseline"] > 0.6
    assert lane["drop_points"] <= 1.0
    assert lane["size_ratio"] <= 0.27
    assert cell["speedup"] >= 2.5
    assert all(row["peak_rss_bytes"] > 0 for row in run["steps"])


def test_the_demo_run_again_takes_seconds(run: dict[str, Any], folder: Path) -> None:
    again = _type("modelmill run recipe.yaml --json", folder)
    assert again.code == 0, again.errors
    assert all(row["cached"] for row in json.loads(again.output)["steps"])
    assert again.seconds < 15


def test_the_demos_report_opens_without_an_error(run: dict[str, Any], tmp_path: Path) -> None:
    with open_browser(tmp_path / "profile") as browser:
        for width in (360, 1280):
            browser.show(Path(run["report"]), width=width)
            assert browser.errors() == []
            assert browser.run("return document.documentElement.scrollWidth") <= width
            browser.screenshot(f"demo-{width}")
