"""Every broken checkpoint is one message with the place and the fix."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from modelmill.core.errors import ModelError
from modelmill.targets.pytorch import load_checkpoint
from modelmill.tasks.text_classification import TextClassification

Breakage = Callable[[Path], object]


def config(**changes: object) -> Breakage:
    def change(directory: Path) -> None:
        document = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps({**document, **changes}))

    return change


def weights(name: str, **how: float | None) -> Breakage:
    def change(directory: Path) -> None:
        tensors = load_file(directory / "model.safetensors")
        if "fill" in how:
            tensors[name].view(-1)[0] = how["fill"]
        else:
            del tensors[name]
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})

    return change


def no_file(*names: str) -> Breakage:
    return lambda directory: [(directory / name).unlink() for name in names]


def other_text(name: str, text: str) -> Breakage:
    return lambda directory: (directory / name).write_text(text)


def pickle_alone(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        (no_file("config.json"), "the model has no config.json"),
        (other_text("config.json", "{"), "not a valid JSON file"),
        (other_text("config.json", "[]"), "should have a `model_type`"),
        (config(model_type="klingon"), "model type `klingon`"),
        (config(model_type="clip"), "CLIPConfig"),
        (config(model_type="zzz", auto_map={"AutoConfig": "x.C"}), "contains custom code"),
        (config(hidden_act="nope"), "KeyError: 'nope'"),
        (config(hidden_size=-4), "negative dimension"),
        (config(hidden_size="big"), "expected int, got str"),
        (config(hidden_size=33), "not a multiple of the number of attention heads"),
        (config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "bitsandbytes"),
        (config(num_hidden_layers=3), "layer.2.attention.* is missing.*, and 13 more"),
        (config(hidden_size=48), r"LayerNorm.bias is \(32,\), not \(48,\)"),
        (config(vocab_size=100), r"word_embeddings.weight is \(246, 32\), not \(100, 32\)"),
        (weights("classifier.bias"), "the weights do not fill the model: classifier.bias is missing"),
        (weights("classifier.bias", fill=float("nan")), "classifier.bias holds values that are not finite"),
        (weights("classifier.bias", fill=float("inf")), "classifier.bias holds values that are not finite"),
        (no_file("model.safetensors"), "the model has no model.safetensors"),
        (pickle_alone, "other formats of weights are not read"),
        (other_text("model.safetensors", ""), "SafetensorError"),
        (other_text("model.safetensors", "not a tensor" * 99), "SafetensorError"),
        (no_file("tokenizer.json", "tokenizer_config.json"), "the model has no tokenizer"),
        (no_file("tokenizer.json"), "cannot load the tokenizer"),
        (other_text("tokenizer.json", "{}"), "cannot load the tokenizer"),
        (other_text("tokenizer.json", "no JSON"), "cannot load the tokenizer"),
    ],
)
def test_a_broken_checkpoint_is_one_message(tmp_path: Path, tiny_bert: Path, breakage: Breakage, said: str) -> None:
    directory = tmp_path / "broken"
    shutil.copytree(tiny_bert, directory)
    breakage(directory)
    with pytest.raises(ModelError) as caught:
        load_checkpoint(directory, TextClassification())
    assert re.search(said, caught.value.what, re.IGNORECASE)
    assert str(directory) in str(caught.value.where)
    assert caught.value.fix


def test_a_tokenizer_past_the_embedding_table_is_named(tmp_path: Path, tiny_bert: Path) -> None:
    directory = tmp_path / "broken"
    shutil.copytree(tiny_bert, directory)
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["novel"] = 246
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="counts to 246, and the embedding table has 246 rows"):
        load_checkpoint(directory, TextClassification())
