"""Whether fetched files are a checkpoint that later steps can load without running anything of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from modelmill.core.contract import JSON
from modelmill.core.errors import ModelError
from modelmill.steps.fetch.safetensors_header import read_header
from modelmill.steps.fetch.selection import INDEX, SHARD, WEIGHTS
from modelmill.steps.fetch.sources.base import Fetched

MAX_JSON_BYTES = 256 << 20
"""Of one JSON file: the largest tokenizer.json in use (multilingual, 256k tokens) is under 40 MB."""
_HEX = frozenset("0123456789abcdef")


def check_checkpoint(files: Sequence[Fetched], sha256: Mapping[str, str]) -> dict[str, JSON]:
    """Check a fetched model.

    Args:
        files: What was copied.
        sha256: File → sha256 that the recipe demands.

    Returns:
        Facts: architecture, parameters, bytes.

    Raises:
        ModelError: A digest differs, the configuration is wrong or wants code to run, the weights are damaged.
    """
    by_name = {file.name: file for file in files}
    for name, expected in sorted(sha256.items()):
        _check_sha256(by_name[name], expected)
    config = _object(by_name["config.json"])
    _check_config(config, by_name["config.json"].where)
    for file in files:
        if file.name.endswith(".json") and file.name != "config.json":
            _refuse_code(_object(file), file.where)
    tensors = _tensors(by_name)
    weights = sum(file.size for file in files if file.name.endswith(".safetensors"))
    return {
        "model_type": config["model_type"],
        "tensors": len(tensors),
        "parameters": sum(prod(shape) for _, shape in tensors.values()),
        "weights_bytes": weights,
        "bytes": sum(file.size for file in files),
        "files": len(files),
    }


def _check_sha256(file: Fetched, expected: str) -> None:
    wanted = expected.lower().removeprefix("sha256:")
    if len(wanted) != 64 or not set(wanted) <= _HEX:
        what = f"model.sha256.{file.name} is no sha256: {expected!r}"
        raise ModelError(what, where=f"model.sha256.{file.name}", fix="give 64 hexadecimal digits")
    if file.sha256 != wanted:
        what = f"{file.name} has the sha256 {file.sha256}, and the recipe demands {wanted}"
        fix = "find out why the file changed; if the new one is right, put its sha256 into the recipe"
        raise ModelError(what, where=file.where, fix=fix)


def _object(file: Fetched) -> dict[str, Any]:
    if file.size > MAX_JSON_BYTES:
        what = f"{file.name} has {file.size} bytes, and {MAX_JSON_BYTES} are the limit"
        raise ModelError(what, where=file.where, fix="save the model or its tokenizer again")
    try:
        document = json.loads(file.path.read_bytes())
    except (ValueError, RecursionError) as error:
        what = f"{file.name} is no JSON: {error}"
        raise ModelError(what, where=file.where, fix="save the model or its tokenizer again") from None
    if not isinstance(document, dict):
        what = f"{file.name} holds no JSON object"
        raise ModelError(what, where=file.where, fix="save the model or its tokenizer again")
    return document


def _check_config(config: Mapping[str, Any], where: str) -> None:
    _refuse_code(config, where)
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        what = "config.json names no model_type, so nothing knows what the model is"
        raise ModelError(what, where=f"{where}, model_type", fix='give it, such as "model_type": "bert"')
    if config.get("quantization_config"):
        what = "config.json has a quantization_config: the model is quantized already"
        fix = "give the float32, float16 or bfloat16 model: modelmill quantizes it itself"
        raise ModelError(what, where=f"{where}, quantization_config", fix=fix)


def _refuse_code(document: Mapping[str, Any], where: str) -> None:
    if document.get("auto_map"):
        name = where.rsplit("/", 1)[-1]
        what = f"{name} has an auto_map: the model needs code of its own to run, and remote code is not run"
        fix = "use a model whose architecture transformers has itself, and save it without auto_map"
        raise ModelError(what, where=f"{where}, auto_map", fix=fix)


def _tensors(files: Mapping[str, Fetched]) -> dict[str, tuple[str, tuple[int, ...]]]:
    if WEIGHTS in files:
        return read_header(files[WEIGHTS].path, files[WEIGHTS].where)
    index = files[INDEX]
    mapping = _object(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        what = f"{INDEX} has no weight_map"
        raise ModelError(what, where=f"{index.where}, weight_map", fix="save the model again")
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for shard in sorted({str(shard) for shard in mapping.values()}):
        if not SHARD.fullmatch(shard) or shard not in files:
            what = f"{INDEX} names the shard {shard!r}, which the model's folder does not have"
            raise ModelError(what, where=f"{index.where}, weight_map", fix="add the shard, or save the model again")
        inside = read_header(files[shard].path, files[shard].where)
        missing = sorted(name for name, holder in mapping.items() if holder == shard and name not in inside)
        if missing:
            what = f"{shard} lacks the tensor {missing[0]}, which {INDEX} says it holds"
            raise ModelError(what, where=files[shard].where, fix="save the model again")
        found.update(inside)
    return found


def drop_unused_shards(files: Sequence[Fetched]) -> list[Fetched]:
    """Remove copied shards that the index does not name: left from a save with another number of shards."""
    by_name = {file.name: file for file in files}
    if INDEX not in by_name:
        return list(files)
    used = {str(shard) for shard in _object(by_name[INDEX]).get("weight_map", {}).values()}
    kept = [file for file in files if not SHARD.fullmatch(file.name) or file.name in used]
    for file in set(files) - set(kept):
        file.path.unlink()
    return kept
