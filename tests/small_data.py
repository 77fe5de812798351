"""A model and a data set of a few hundred bytes, sound in form: what fetch reads, and what a fault is put into."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

TRAIN = [
    {"text": f"{word} number {n}", "label": label} for label, word in (("a", "card"), ("b", "money")) for n in range(10)
]
TEST = [
    {"text": f"{word} question {n}", "label": label}
    for label, word in (("a", "card"), ("b", "money"))
    for n in range(5)
]


def json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def data_files() -> dict[str, bytes]:
    """Twenty training rows and ten to judge by, of two labels."""
    return {"train.jsonl": json_lines(TRAIN), "test.jsonl": json_lines(TEST)}


def model_files(rows: int = 4) -> dict[str, bytes]:
    """What save_pretrained writes of a model with two tensors, the larger of ``rows`` × 4 float32."""
    weights = {"one.weight": np.ones((rows, 4), np.float32), "two.bias": np.zeros(4, np.float32)}
    return {
        "config.json": b'{"model_type": "bert", "hidden_size": 4}',
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b"{}",
        "model.safetensors": save(weights),
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder, which is made."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
