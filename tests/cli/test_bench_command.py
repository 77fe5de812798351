from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelmill.cli.main import app
from modelmill.core.errors import HardwareError, ModelmillError
from tiny_artifacts import random_rows, rows_artifact


def test_bench_prints_models_cells_and_texts(exported: Path, tmp_path: Path) -> None:
    rows = rows_artifact(tmp_path / "rows", random_rows(40))
    arguments = [str(exported), "--cell", "1x16", "--cell", "2x128", "--seconds", "0.3", "--processes", "1"]
    arguments += ["--texts", str(rows), "--text-count", "30", "--core-hour", "0.04"]
    done = CliRunner().invoke(app, ["bench", *arguments, "--runtime", "onnxruntime", "--runtime", "openvino"])
    assert done.exit_code == 0, done.output
    for words in ("over one process", "first answer", "peak memory", "batch 1, length 16", "ms p99", "against itself"):
        assert words in done.stdout
    assert "batch 2, length 128 is measured at length 64, the model's maximum" in done.stdout
    for words in ("30 texts, one at a time", "30 texts in batches", "cost of a million"):
        assert words in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith("1:")]) == 2 * 5
    document = json.loads(CliRunner().invoke(app, ["bench", *arguments, "--json"]).stdout)
    assert document["processes"] == 1
    assert document["texts"]["rows"][0]["cost_per_million"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--core-hour", "0.04"], "a cost is of texts, and none are timed"),
        (["--core-hour", "-1"], "a price is a number above 0"),
        (["--core-hour", "nan", "--texts", "."], "a price is a number above 0"),
        (["--core-hour", "inf", "--texts", "."], "a price is a number above 0"),
        (["--seconds", "inf"], "cannot be timed for inf seconds"),
        (["--core-hour", "0.04", "--texts", ".", "--runtime", "onnxruntime-cuda"], "a GPU is not one"),
        (["--against", "pytorch"], "was made from is not known"),
        (["--runtime", "onyx"], "there is no runtime 'onyx' here"),
        (["--cell", "1-16"], "'1-16' is no shape of input"),
        (["--texts", "."], "is no rows artifact"),
        (["--texts", "nowhere"], "there is no directory nowhere"),
        (["."], "is no model"),
        (["--against", "."], "is no model"),
    ],
)
def test_what_bench_cannot_do_is_one_message(
    exported: Path, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["bench", str(exported), *arguments])
    assert done.exit_code != 0
    assert isinstance(done.exception, ModelmillError)
    assert said in done.exception.what
    assert done.exception.exit_code == 2
    assert done.exception.fix


@pytest.mark.parametrize("runtime", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_gpus_runtime_is_refused_where_there_is_none_before_anything_is_timed(exported: Path, runtime: str) -> None:
    done = CliRunner().invoke(app, ["bench", str(exported), "--runtime", runtime])
    assert isinstance(done.exception, HardwareError)
    assert done.exception.exit_code == 2
    assert "GPU" in done.exception.what
    assert done.exception.fix
    assert done.stdout == ""
