"""Compile each recipe of pipelines/recipes into pipelines/compiled, and each step's component.py into component.yaml.

The example deployment says where the recipes' pipelines run. ``python pipelines/build.py`` writes all of them,
``python pipelines/build.py --check`` says which differ from what is there.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import kfp.compiler

from modelmill import deployment as deployments
from modelmill import kubeflow
from modelmill import recipe as recipes
from modelmill.line import LINE, Job
from modelmill.runners.components import component_of
from modelmill.runners.containers import describe
from modelmill.runners.kubeflow import compile_to
from modelmill.runners.parameters import for_cluster

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_KEPT = ("pipelines/compiled/*.yaml", "components/modelmill/steps/*/component*.yaml")


def build(folder: Path) -> list[Path]:
    """Write everything that is compiled below a folder, at the paths that it has below the project's root."""
    return [*_pipelines(folder / "pipelines" / "compiled"), *_components(folder / "components" / "modelmill" / "steps")]


def _pipelines(folder: Path) -> list[Path]:
    deployed = deployments.load(HERE / "deployment.yaml")
    written = []
    for path in sorted((HERE / "recipes").glob("*.yaml")):
        located = recipes.load(path)
        for_cluster(located)
        compile_to(describe(Job(located, deployed)), folder / path.name)
        written.append(folder / path.name)
    return written


def _components(folder: Path) -> list[Path]:
    written = []
    for contract in (node.contract for node in LINE):
        name = f"component-{contract.part}.yaml" if contract.part else "component.yaml"
        path = folder / contract.name.replace("-", "_") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kfp.compiler.Compiler().compile(getattr(kubeflow, component_of(contract).name), str(path))
        written.append(path)
    return written


def main(arguments: list[str]) -> int:
    """Write, or check; the exit code."""
    if arguments != ["--check"]:
        for path in build(ROOT):
            sys.stdout.write(f"written: {path.relative_to(ROOT)}\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        made = {path.relative_to(folder): path.read_text("utf-8") for path in build(Path(folder))}
        kept = {path.relative_to(ROOT) for glob in _KEPT for path in ROOT.glob(glob)}
        stale = sorted({name for name, text in made.items() if text != _text(ROOT / name)} | (kept - set(made)))
    for name in stale:
        sys.stderr.write(f"{name} is not what its source compiles to: make pipelines\n")
    return 1 if stale else 0


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
