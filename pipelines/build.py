"""Compile each recipe of pipelines/recipes into pipelines/compiled, as the example deployment says.

``python pipelines/build.py`` writes them, ``python pipelines/build.py --check`` says which differ from what is there.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from modelmill import deployment as deployments
from modelmill import recipe as recipes
from modelmill.line import Job
from modelmill.runners.containers import describe
from modelmill.runners.kubeflow import compile_to
from modelmill.runners.parameters import for_cluster

HERE = Path(__file__).resolve().parent


def build(folder: Path) -> list[Path]:
    """The pipelines, written into a folder."""
    deployed = deployments.load(HERE / "deployment.yaml")
    written = []
    for path in sorted((HERE / "recipes").glob("*.yaml")):
        located = recipes.load(path)
        for_cluster(located)
        compile_to(describe(Job(located, deployed)), folder / path.name)
        written.append(folder / path.name)
    return written


def main(arguments: list[str]) -> int:
    """Write, or check; the exit code."""
    if arguments != ["--check"]:
        for path in build(HERE / "compiled"):
            sys.stdout.write(f"written: {path.relative_to(HERE.parent)}\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        made = build(Path(folder))
        kept = {path.name for path in (HERE / "compiled").glob("*.yaml")}
        stale = sorted({path.name for path in made if path.read_text() != _text(HERE / "compiled" / path.name)})
        stale += sorted(kept - {path.name for path in made})
    for name in stale:
        sys.stderr.write(f"pipelines/compiled/{name} is not what its recipe compiles to: make pipelines\n")
    return 1 if stale else 0


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
