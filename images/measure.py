"""Measure built images and write the table of images/README.md.

``python images/measure.py [--engine podman] light=modelmill-light:0.1.0 cpu=modelmill-cpu:0.1.0``
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

README = Path(__file__).resolve().parent / "README.md"
START, END = "<!-- written by make image-sizes -->", "<!-- end -->"
HEAD = "| image | size, MB | of it the base, MB | packages | a task's start, s |\n| --- | --- | --- | --- | --- |"
ROUNDS = 7
PACKAGES = "import importlib.metadata as m; print(len({d.name for d in m.distributions()}))"
START_OF_A_TASK = ["modelmill", "task", "finish", "--store", "/tmp/store", "--run", "none"]
"""It opens the store, finds no such run and ends: what any task costs before its work."""


class Engine:
    """podman or docker."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __call__(self, *arguments: str) -> str:
        """Run it; what it printed, whatever its exit code."""
        return subprocess.run([self._command, *arguments], capture_output=True, text=True, check=False).stdout.strip()

    def size_bytes(self, image: str) -> int:
        """The image's size.

        Raises:
            SystemExit: There is no such image.
        """
        size = self("image", "inspect", "--format", "{{.Size}}", image)
        if not size.isdigit():
            sys.exit(f"error: {self._command} has no image {image}\n  fix:   make images")
        return int(size)


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="podman", help="podman or docker")
    parser.add_argument("images", nargs="+", metavar="NAME=IMAGE")
    arguments = parser.parse_args()
    engine = Engine(arguments.engine)
    images = dict(item.split("=", 1) for item in arguments.images)
    sizes = {name: engine.size_bytes(image) for name, image in images.items()}
    seconds = _starts(engine, images)
    rows = []
    for name, image in images.items():
        own = int(engine("run", "--rm", image, "du", "-sb", "/opt/modelmill").split()[0])
        packages = engine("run", "--rm", image, "python", "-c", PACKAGES)
        base = max(sizes[name] - own, 0)
        rows.append(f"| {name} | {sizes[name] / 1e6:.0f} | {base / 1e6:.0f} | {packages} | {seconds[name]:.2f} |")
    table = "\n".join([START, HEAD, *rows, END])
    sys.stdout.write(f"{table}\n")
    text = README.read_text("utf-8")
    README.write_text(re.sub(f"{START}.*{END}", lambda _: table, text, flags=re.DOTALL), "utf-8")


def _starts(engine: Engine, images: dict[str, str]) -> dict[str, float]:
    """Median seconds from the engine's start to a task's end; in turns, so that a busy minute meets all images."""
    taken: dict[str, list[float]] = {name: [] for name in images}
    for _ in range(ROUNDS):
        for name, image in images.items():
            started = time.monotonic()
            engine("run", "--rm", image, *START_OF_A_TASK)
            taken[name].append(time.monotonic() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


if __name__ == "__main__":
    main()
