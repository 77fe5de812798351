from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import modelmill

SCRIPT = """
import sys
from pathlib import Path
import modelmill, transformers
from lane_steps import run_export
assert modelmill.__file__.startswith(sys.argv[3]), modelmill.__file__
assert transformers.__file__.startswith(sys.argv[3]), transformers.__file__
run_export(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def install(prefix: Path) -> Path:
    """Another install of modelmill and of all it stands on: copied, or linked file by file where it is large."""
    packages = prefix / "lib" / "site-packages"
    packages.mkdir(parents=True)
    shutil.copytree(Path(modelmill.__file__).parent, packages / "modelmill")
    for entry in Path(site.getsitepackages()[0]).iterdir():
        if not (packages / entry.name).exists():
            (packages / entry.name).symlink_to(entry)
    return packages


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, lane_of: Callable[[str], Any]) -> tuple[Path, Path]:
    """The same checkpoint, exported here, and by another install in another process from another directory."""
    lane = lane_of("bert")
    here = tmp_path_factory.mktemp("install") / "a much longer second place"
    packages = install(here)
    shutil.copytree(lane.checkpoint, here / "checkpoint")
    (here / "home").mkdir()
    path = os.pathsep.join([str(packages), str(Path(__file__).parents[2])])
    environment = {"PATH": os.environ["PATH"], "HOME": str(here / "home"), "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-S", "-c", SCRIPT, "checkpoint", "model", str(here)]
    subprocess.run(command, cwd=here, env=environment, check=True, capture_output=True, text=True)
    return lane.exported, here / "model"


def test_two_install_paths_give_the_same_bytes(exports: tuple[Path, Path]) -> None:
    first, second = exports
    names = sorted(path.name for path in first.iterdir())
    assert "model.onnx" in names
    assert names == sorted(path.name for path in second.iterdir())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_a_graph_tells_nothing_of_the_machine_that_traced_it(exports: tuple[Path, Path]) -> None:
    model = onnx.load(exports[1] / "model.onnx")
    assert not model.graph.value_info
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    # As text: in the file's own encoding a length of 47 is a slash.
    text = str(model)
    for trace in ("/", "\\\\", ".py", "torch", "File ", os.uname().nodename):
        assert trace not in text, trace
