"""Wrong input: exit code 2, one message with file, field and fix, no traceback, and a store as it was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from environments import ROOT
from modelmill.cli import main as command
from modelmill.core.errors import InputError
from modelmill.core.local_store import LocalStore
from whole_line import make_recipe, run_in_this_process

DEMO = ROOT / "pipelines" / "recipes" / "demo.yaml"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, a model and rows in which nothing is wrong."""
    folder = tmp_path_factory.mktemp("good")
    make_recipe(folder, retrain={"method": "none"})
    return folder


def _main(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["modelmill", *arguments])
    with pytest.raises(SystemExit) as caught:
        command.main()
    return int(caught.value.code or 0)


def _with(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda recipe: recipe.update(changes)


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda recipe: recipe.pop(name)


RECIPES: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (_without("model"), "'model' is missing"),
    (_without("data"), "'data' is missing"),
    (_without("task"), "'task' is missing"),
    (_without("name"), "'name' is missing"),
    (_with(name="Not a name"), "name"),
    (_with(task="text-classify"), "text-classification"),
    (_with(gates={}), "did you mean gate?"),
    (_with(gate={"max_drop": 1}), "did you mean max_drop_points?"),
    (_with(gate={"max_drop_points": "one"}), "gate.max_drop_points"),
    (_with(gate={"confidence": 1}), "gate.confidence"),
    (_with(retrain={"method": "distil"}), "retrain.method"),
    (_with(retrain={"method": "fine-tune", "epochs": 1.5}), "retrain.epochs"),
    (_with(targets=[]), "targets"),
    (_with(targets=[{"name": "x", "runtime": "onnxruntime-cuda"}]), "onnxruntime-cuda"),
    (_with(targets=[{"name": "x", "precision": "int3"}]), "targets.0.precision"),
    (_with(targets=[{"name": "x"}, {"name": "x"}]), "two are named"),
    (_with(model={"source": "somewhere"}), "model.source"),
    (_with(model={"source": "hf://x"}), "model.source"),
    (_with(data={"source": "file:rows", "tune": 2}), "data.tune"),
    (_with(data={"source": "file:rows", "evaluate": "train"}), "never judge it"),
    (_with(data={"source": "file:rows", "columns": {"txet": "a"}}), "did you mean text?"),
    (_with(publish={"model": "a/b"}), "publish.model"),
    (_with(publish={"model": "a", "require": ["nobody"]}), "publish.require"),
]


@pytest.mark.parametrize(("change", "words"), RECIPES, ids=range(len(RECIPES)))
def test_a_wrong_recipe_ends_with_exit_code_2_and_one_message(
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], None],
    words: str,
) -> None:
    recipe = yaml.safe_load((good / "recipe.yaml").read_text())
    change(recipe)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    assert _main(["run", str(path), "--store", str(tmp_path / "store")], monkeypatch) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert words in shown.err
    assert str(path) in shown.err
    assert "fix:" in shown.err
    assert "Traceback" not in shown.err
    assert not (tmp_path / "store").exists()


def _rows(folder: Path, name: str, *lines: str) -> None:
    (folder / "rows" / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))


def _row(text: object, label: object = "card", **more: object) -> str:
    return json.dumps({"text": text, "label": label, **more})


def _config(folder: Path, **changes: object) -> None:
    path = folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


TWO = (_row("card pin", "card"), _row("cash fee", "money"))

INPUTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no data folder": (lambda f: shutil.rmtree(f / "rows"), "rows"),
    "no train split": (lambda f: (f / "rows/train.jsonl").unlink(), "train"),
    "no test split": (lambda f: (f / "rows/test.jsonl").unlink(), "test"),
    "empty train": (lambda f: _rows(f, "train"), "train.jsonl"),
    "not JSON": (lambda f: _rows(f, "train", *TWO, "{text: 1}"), "train.jsonl"),
    "a list for a row": (lambda f: _rows(f, "train", *TWO, "[1, 2]"), "train.jsonl"),
    "no label column": (lambda f: _rows(f, "train", '{"text": "a"}', '{"text": "b"}'), "label"),
    "another name for text": (lambda f: _rows(f, "train", '{"txt": "a", "label": "x"}'), "text"),
    "an empty text": (lambda f: _rows(f, "train", *TWO, _row("  ", "card")), "train.jsonl"),
    "a number for a text": (lambda f: _rows(f, "train", *TWO, _row(5, "card")), "text"),
    "a null label": (lambda f: _rows(f, "train", *TWO, _row("cash", None)), "label"),
    "one class": (lambda f: _rows(f, "train", _row("a"), _row("b"), _row("c")), "card"),
    "an unknown label to judge": (lambda f: _rows(f, "test", _row("a", "nobody")), "nobody"),
    "not UTF-8": (lambda f: (f / "rows/train.jsonl").write_bytes(b'{"text": "\xff\xfe", "label": "a"}\n'), "UTF-8"),
    "a gzip that is none": (
        lambda f: [(f / "rows/train.jsonl").unlink(), (f / "rows/train.jsonl.gz").write_bytes(b"text")],
        "train.jsonl.gz",
    ),
    "pairs here and there": (lambda f: _rows(f, "train", *TWO, _row("a", "card", text_pair="b")), "text_pair"),
    "no model folder": (lambda f: shutil.rmtree(f / "model"), "model"),
    "no config": (lambda f: (f / "model/config.json").unlink(), "config.json"),
    "a config that is no JSON": (lambda f: (f / "model/config.json").write_text("{"), "config.json"),
    "no weights": (lambda f: (f / "model/model.safetensors").unlink(), "safetensors"),
    "a pickle for weights": (
        lambda f: (f / "model/model.safetensors").rename(f / "model/pytorch_model.bin"),
        "pytorch_model.bin",
    ),
    "weights cut short": (
        lambda f: (f / "model/model.safetensors").write_bytes((f / "model/model.safetensors").read_bytes()[:5000]),
        "model.safetensors",
    ),
    "weights that are none": (lambda f: (f / "model/model.safetensors").write_bytes(b"\xff" * 64), "safetensors"),
    "remote code": (lambda f: _config(f, auto_map={"AutoModel": "modeling.Model"}), "auto_map"),
    "an unknown architecture": (lambda f: _config(f, model_type="no-such-type"), "no-such-type"),
    "no tokenizer": (lambda f: [p.unlink() for p in (f / "model").glob("tokenizer*")], "tokenizer"),
    "other labels than the data's": (lambda f: None, "label"),
}


SEEN_AFTER_FETCH = {"an unknown architecture", "no tokenizer", "other labels than the data's"}
"""What fetch can't know without loading the model: its own outputs may stay in the store."""


@pytest.mark.parametrize("name", INPUTS)
def test_wrong_data_or_a_wrong_model_is_named_by_file_and_fix(good: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(good, tmp_path / "input")
    break_it, words = INPUTS[name]
    break_it(tmp_path / "input")
    store = tmp_path / "store"
    with pytest.raises(InputError) as caught:
        run_in_this_process(tmp_path / "input" / "recipe.yaml", LocalStore(store))
    message = str(caught.value)
    assert words in message
    assert "fix:" in message
    assert caught.value.exit_code == 2
    if name not in SEEN_AFTER_FETCH:
        assert not store.exists()
    assert not (store / "registry").exists()


def test_check_tells_that_this_machine_cannot_run_a_lane_and_the_recipe_stays_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lanes = [{"name": "here"}, {"name": "there", "hardware_class": "cpu/of-another-make/amx_int8/64t"}]
    recipe = make_recipe(tmp_path, retrain={"method": "none"}, targets=lanes)
    assert _main(["check", str(recipe)], monkeypatch) == 0
    said = capsys.readouterr()
    assert "targets: here, there" in said.out
    assert "run would end at once on this machine" in said.err
    assert "declares the hardware class cpu/of-another-make/amx_int8/64t" in said.err


def test_the_command_itself_says_it_once_and_without_a_trace(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path / "input")
    _rows(tmp_path / "input", "train", *TWO, _row("", "card"))
    arguments = ["run", str(tmp_path / "input/recipe.yaml"), "--store", str(tmp_path / "store"), "--json"]
    ended = subprocess.run(
        [sys.executable, "-m", "modelmill.cli.main", *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("error: ") == 1
    assert "Traceback" not in ended.stderr
    assert "train.jsonl" in ended.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.yaml"], "there is no recipe"),
        (["check", "."], "is a directory"),
        (["run", "{recipe}", "--set", "gate.x=1"], "gate.x"),
        (["run", "{recipe}", "--set", "targets=[]"], "structural"),
        (["run", "{recipe}", "--store", "ftp://x"], "ftp://"),
        (["run", "{recipe}", "--store", "{recipe}"], "is a file"),
        (["run", "{recipe}", "--deployment", "nowhere.yaml"], "there is no deployment"),
        (["step", "exprot", "--settings", "x.json"], "did you mean export?"),
        (["step", "export", "--settings", "x.json"], "needs the input checkpoint"),
        (["step", "export", "--settings", "x.json", "--input", "modle=1"], "gives no input port"),
        (["runs", "show", "latest"], "there is no run"),
        (["report", "nosuchrun"], "there is no run"),
        (["verify", "nowhere"], "there is no directory"),
        (["verify", "."], "no bundle"),
        (["channel", "show", "m", "staging"], "nothing was promoted"),
        (["channel", "show", "../m", "staging"], "cannot name a model"),
        (["push", "nowhere"], "there is no file or folder"),
        (["task", "nope", "--store", "store", "--run", "r", "--recipe", "sha256:" + 64 * "0"], "no task 'nope'"),
        (["compile", "{demo}", "--output", "x.yaml", "--store", "s3://b/x"], "no bucket's name"),
        (["compile", "{demo}", "--output", "x.yaml", "--store", "/x", "--deployment", "{docker}"], "each pod has"),
        (["schedule", "show", "--host", "http://[::1"], "is no address"),
        (["schedule", "show", "--host", "http://kubeflow:port"], "is no address"),
        (["init", "nofolder/recipe.yaml"], "there is no folder"),
        (["init", "{recipe}"], "never overwrites"),
    ],
)
def test_a_wrong_argument_is_named(
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    docker = good / "docker.yaml"
    docker.write_text("backend: docker\n")
    filled = [part.format(recipe=good / "recipe.yaml", demo=DEMO, docker=docker) for part in arguments]
    assert _main(filled, monkeypatch) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert "Traceback" not in shown.err
    assert list(tmp_path.iterdir()) == []
