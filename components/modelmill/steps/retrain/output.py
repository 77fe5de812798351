"""The checkpoint that retrain gives: config.json, safetensors and the tokenizer, and nothing of this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelmill.core.contract import JSON
from modelmill.core.errors import ModelError
from modelmill.core.manifest import write_json
from modelmill.core.rows import Row
from modelmill.targets.pytorch import load_processor, quiet_transformers

if TYPE_CHECKING:
    from modelmill.tasks.base import Task

_INDEX = "model.safetensors.index.json"
# Where a model was loaded from is no part of it, and remote code is never run.
_CONFIG_LEFT_OUT = ("_name_or_path", "auto_map")
# Paths of this machine, and the truncation and padding that tokenizer.json held for somebody else.
_TOKENIZER_LEFT_OUT = (
    "name_or_path", "is_local", "local_files_only", "vocab_file", "merges_file", "tokenizer_file",
    "special_tokens_map_file", "added_tokens_file", "auto_map", "max_length", "stride", "truncation_strategy",
    "pad_to_multiple_of",
)  # fmt: skip
_COMPARED_ROWS = 256


def write_trained(directory: Path, model: Any) -> None:
    """Write the trained weights (float32) and their configuration."""
    with quiet_transformers():
        model.save_pretrained(directory)
    _edit(directory / "config.json", _CONFIG_LEFT_OUT, {})


def copy_untrained(source: Path, directory: Path, labels: Sequence[str]) -> None:
    """Copy weights byte for byte, and the configuration with ``labels`` as its classes.

    Raises:
        ModelError: The index of a sharded model names a file elsewhere.
    """
    names = ["model.safetensors"] if (source / "model.safetensors").is_file() else _shards(source)
    for name in ["config.json", *names]:
        shutil.copyfile(source / name, directory / name)
    named: dict[str, JSON] = {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    _edit(directory / "config.json", _CONFIG_LEFT_OUT, named if labels else {})


def write_tokenizer(directory: Path, processor: Any, max_length: int, task: Task, rows: Sequence[Row]) -> None:
    """Write the tokenizer, its truncation and padding reset, its ``model_max_length`` the model's.

    Args:
        directory: The checkpoint's.
        processor: The tokenizer that was loaded from the source.
        max_length: Tokens at which texts are cut.
        task: Encodes ``rows``.
        rows: Texts on which the written tokenizer is compared with ``processor``.

    Raises:
        ModelError: Read again, the tokenizer gives other tokens.
    """
    shown = list(rows[:_COMPARED_ROWS])
    before = task.encode(processor, shown, max_length)
    backend = getattr(processor, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    with quiet_transformers():
        processor.save_pretrained(directory)
    _edit(directory / "tokenizer_config.json", _TOKENIZER_LEFT_OUT, {"model_max_length": max_length})
    after = task.encode(load_processor(directory), shown, max_length)
    for row, had, has in zip(shown, before, after, strict=True):
        if had.keys() != has.keys() or not all(np.array_equal(had[name], has[name]) for name in had):
            what = "transformers does not save this tokenizer faithfully: read again, it gives other tokens"
            fix = "convert it to a tokenizer.json that AutoTokenizer loads, and put that beside the weights"
            raise ModelError(what, where=f"tokenizer of the model, at row {row.get('id')}", fix=fix)


def _shards(source: Path) -> list[str]:
    weight_map = json.loads((source / _INDEX).read_text("utf-8"))["weight_map"]
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name:
            what = f"the index of the weights names {name!r}, which is not beside it"
            raise ModelError(what, where=str(source / _INDEX), fix="put all shards beside the index")
    return [_INDEX, *names]


def _edit(path: Path, left_out: Sequence[str], changes: Mapping[str, JSON]) -> None:
    document = json.loads(path.read_text("utf-8"))
    write_json(path, {**{name: value for name, value in document.items() if name not in left_out}, **changes})
