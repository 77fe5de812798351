from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelmill.core.errors import ModelError
from modelmill.core.model import copy_companions, read_model

DOCUMENT = {
    "task": "text-classification",
    "architecture": "bert",
    "precision": "float32",
    "opset": 20,
    "components": {"model": {"file": "model.onnx", "inputs": [], "outputs": []}},
    "execution": {"kind": "chain", "stages": [{"component": "model", "feeds": {}, "gives": {}}]},
    "processors": {"tokenizer": ["tokenizer.json"]},
    "max_length": 8,
}


def write(directory: Path, **changes: object) -> Path:
    for name in ("model.onnx", "tokenizer.json", "config.json"):
        (directory / name).write_text(name)
    (directory / "model.json").write_text(json.dumps({**DOCUMENT, **changes}))
    return directory


def test_an_artifact_names_all_its_files(tmp_path: Path) -> None:
    document = read_model(write(tmp_path))
    assert document.files() == ["config.json", "model.onnx", "tokenizer.json"]
    assert document.companions() == ["config.json", "tokenizer.json"]


def test_companions_are_copied_and_graphs_are_not(tmp_path: Path) -> None:
    source, copied = tmp_path / "source", tmp_path / "copied"
    source.mkdir()
    copied.mkdir()
    copy_companions(read_model(write(source)), source, copied)
    assert sorted(path.name for path in copied.iterdir()) == ["config.json", "tokenizer.json"]


def test_a_directory_without_model_json_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"it has no model\.json"):
        read_model(tmp_path)


def test_a_named_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (write(tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"names tokenizer\.json, which is not there"):
        read_model(tmp_path)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd"])
def test_a_graph_outside_the_artifact_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, components={"model": {"file": name, "inputs": [], "outputs": []}})
    with pytest.raises(ModelError, match="leaves its artifact"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"opset": "new"}, "opset"), ({"surprise": 1}, "surprise"), ({"execution": {"kind": "loop"}}, "execution")],
)
def test_a_malformed_document_is_refused_by_field(tmp_path: Path, changes: dict[str, object], field: str) -> None:
    with pytest.raises(ModelError) as found:
        read_model(write(tmp_path, **changes))
    assert field in str(found.value.where)
