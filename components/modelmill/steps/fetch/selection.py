"""Which files of a source's folder are read. The names come from outside; what they hold is checked elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import partial

from modelmill.core.errors import DataError, ModelError, RecipeError
from modelmill.steps.fetch.contract import DataSource, ModelSource
from modelmill.steps.fetch.division import splits_of
from modelmill.steps.fetch.licence import CARD
from modelmill.steps.fetch.sources.base import Choose

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
OTHER_WEIGHTS = (".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".tflite")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "bpe.codes")
SENTENCEPIECE = ".model"
BESIDE = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "normalizer.json",
    "chat_template.jinja",
)
FORMATS = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
FILES, BOTOCORE_OPERATIONS = "files", "botocore-operations"
READERS = (FILES, BOTOCORE_OPERATIONS)
BOTOCORE_SPLITS = ("train", "test")
_SERVICE_MODEL = re.compile(r"([^/]+)/(\d{4}-\d{2}-\d{2})/service-2\.json\.gz")
_SHOWN = 12


def listed(names: Iterable[str]) -> str:
    """Names for a message, not more than a line of them."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return (", ".join(ordered[:_SHOWN]) or "nothing") + more


def model_files(names: Sequence[str], *, model: ModelSource) -> list[str]:
    """The files of a checkpoint that matter: configuration, safetensors, tokenizer, card. Nothing pickled, no code.

    Raises:
        ModelError: One that is needed is not there, or the recipe pins one that is not.
    """
    present = {name for name in names if "/" not in name}
    where = model.source
    if "config.json" not in present:
        if "adapter_config.json" in present:
            what = "adapter_config.json says that this is an adapter, and modelmill takes whole models"
            fix = "merge it into its base model (merge_and_unload) and save that with save_pretrained"
            raise ModelError(what, where=f"{where}/adapter_config.json", fix=fix)
        what = f"the model has no config.json; its folder holds {listed(names)}"
        raise ModelError(what, where=where, fix="name the folder that save_pretrained wrote")
    chosen = {"config.json", *_weights(present, where), *_tokenizer(present, where)}
    chosen.update(name for name in BESIDE if name in present)
    for pinned in sorted(model.sha256):
        if pinned not in chosen:
            near = get_close_matches(pinned, sorted(chosen), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            what = f"model.sha256 pins {pinned}, which is none of the model's files{hint}"
            raise ModelError(what, where=f"model.sha256.{pinned}", fix=f"pin one of: {listed(chosen)}")
    return sorted({*chosen, *({CARD} & present)})


def _weights(present: set[str], where: str) -> list[str]:
    if WEIGHTS in present:
        return [WEIGHTS]
    if INDEX in present:
        return [INDEX, *(name for name in present if SHARD.fullmatch(name))]
    save = "AutoModel.from_pretrained(…).save_pretrained(FOLDER), in a place where you trust the model"
    for endings, kind, reason in (
        (PICKLED, "pickled", "and unpickling runs whatever code they hold"),
        (OTHER_WEIGHTS, "in another format", "and only safetensors are read"),
    ):
        found = sorted(name for name in present if name.endswith(endings) and name != "training_args.bin")
        if found:
            what = f"{found[0]}: the model's weights are {kind}, {reason}"
            raise ModelError(what, where=f"{where}/{found[0]}", fix=f"save them as {WEIGHTS}: {save}")
    others = sorted(name for name in present if name.endswith(".safetensors"))
    what = f"the model has no {WEIGHTS}; its folder holds {listed(present)}"
    if others:
        fix = f"if {others[0]} holds the whole model, rename it to {WEIGHTS}"
    else:
        fix = f"name a folder with {WEIGHTS}, or with {INDEX} and its shards"
    raise ModelError(what, where=where, fix=fix)


def _tokenizer(present: set[str], where: str) -> list[str]:
    found = [name for name in present if name in TOKENIZERS or name.endswith(SENTENCEPIECE)]
    if not found:
        what = f"the model has no tokenizer; its folder holds {listed(present)}"
        fix = "save it beside the model: AutoTokenizer.from_pretrained(…).save_pretrained(FOLDER)"
        raise ModelError(what, where=where, fix=fix)
    return found


def split_files(names: Sequence[str], *, source: str, splits: Sequence[str]) -> list[str]:
    """One file for each split.

    Raises:
        DataError: A split has no file, two files, or one of a format that is not read.
    """
    present = {name for name in names if "/" not in name}
    chosen = []
    for split in splits:
        found = [split + ending for ending in FORMATS if split + ending in present]
        if len(found) > 1:
            what = f"the split {split!r} has {len(found)} files: {listed(found)}"
            raise DataError(what, where=f"{source}/{found[1]}", fix="keep one file for each split")
        chosen.extend(found or _no_split(present, source, split))
    return chosen


def _no_split(present: set[str], source: str, split: str) -> list[str]:
    formats = ", ".join(FORMATS)
    similar = sorted(name for name in present if name.startswith(f"{split}."))
    if similar:
        what = f"the split {split!r} is in {similar[0]}, and that format is not read (archives are not unpacked)"
        raise DataError(what, where=f"{source}/{similar[0]}", fix=f"write it as one of: {formats}")
    splits = {name.removesuffix(ending) for name in present for ending in FORMATS if name.endswith(ending)}
    near = get_close_matches(split, sorted(splits), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    found = f"the splits found are {listed(splits)}" if splits else f"the folder holds {listed(present)}"
    what = f"there is no split {split!r}: {found}{hint}"
    fix = f"name an existing split in data.train, tune, calibrate and evaluate, or add {split} with one of: {formats}"
    raise DataError(what, where=source, fix=fix)


def service_models(names: Sequence[str], *, source: str, splits: Sequence[str]) -> list[str]:
    """The newest model of every service in botocore's data.

    Raises:
        DataError: The folder is not botocore's data, or a split is asked for that the reader does not make.
    """
    for split in splits:
        if split not in BOTOCORE_SPLITS:
            what = f"the reader {BOTOCORE_OPERATIONS} makes the splits train and test, and no {split!r}"
            raise DataError(what, where=source, fix="use train (with a share in data.tune) and test")
    newest: dict[str, str] = {}
    for name in sorted(names):
        match = _SERVICE_MODEL.fullmatch(name)
        if match:
            newest[match[1]] = name
    if not newest:
        what = f"the folder holds no service models of botocore; it holds {listed(names)}"
        fix = "name botocore's data folder: package:botocore/data, or use the reader files"
        raise DataError(what, where=source, fix=fix)
    return sorted(newest.values())


def choose_model(model: ModelSource) -> Choose:
    """What to read of a model's folder."""
    return partial(model_files, model=model)


def choose_data(data: DataSource) -> Choose:
    """What to read of a data set's folder.

    Raises:
        RecipeError: The reader is unknown, or the roles are not what they must be.
    """
    splits = splits_of(data)
    if data.reader == FILES:
        return partial(split_files, source=data.source, splits=splits)
    if data.reader == BOTOCORE_OPERATIONS:
        if not data.source.startswith(("package:", "file:")):
            what = f"the reader {BOTOCORE_OPERATIONS} reads an installed botocore, and not {data.source}"
            raise RecipeError(what, where="data.source", fix="use package:botocore/data")
        return partial(service_models, source=data.source, splits=splits)
    near = get_close_matches(data.reader, READERS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    what = f"there is no reader {data.reader!r}{hint}"
    raise RecipeError(what, where="data.reader", fix=f"use one of: {', '.join(READERS)}")
