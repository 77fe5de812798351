"""A model that is taken as it is, and the labels it must have."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from training_data import make_inputs, retrain
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from modelmill.core.errors import ModelError
from modelmill.steps.retrain.contract import NoTraining
from small_models import make_checkpoint

NONE = NoTraining(method="none")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_weights_are_copied_byte_for_byte(tiny_bert: Path, tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, tiny_bert, ["gamma", "beta", "alpha"])
    outputs, report = retrain(tmp_path, inputs, NONE)
    assert sha256(outputs.checkpoint / "model.safetensors") == sha256(tiny_bert / "model.safetensors")
    assert {path.name for path in outputs.checkpoint.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    config = json.loads((outputs.checkpoint / "config.json").read_text())
    assert config["id2label"] == {"0": "alpha", "1": "beta", "2": "gamma"}
    assert dict(report.facts) == {"method": "none", "labels": 3, "max_length": 64}


def test_shards_are_copied_with_their_index(tiny_bert: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    AutoModelForSequenceClassification.from_pretrained(tiny_bert).save_pretrained(model, max_shard_size="60KB")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(model)
    assert not (model / "model.safetensors").exists()
    outputs, _ = retrain(tmp_path, make_inputs(tmp_path, model, ["alpha", "beta", "gamma"]), NONE)
    assert AutoModelForSequenceClassification.from_pretrained(outputs.checkpoint).num_labels == 3


def test_a_shard_elsewhere_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    shutil.move(model / "model.safetensors", tmp_path / "outside.safetensors")
    weights = AutoModelForSequenceClassification.from_pretrained(tiny_bert).state_dict()
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "../outside.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"names '\.\./outside\.safetensors', which is not beside it"):
        retrain(tmp_path, make_inputs(tmp_path, model, ["alpha", "beta", "gamma"]), NONE)


def test_paths_and_remote_code_leave_the_configuration(tiny_bert: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    config = json.loads((model / "config.json").read_text())
    config |= {"_name_or_path": "/home/somebody/model", "auto_map": {"AutoConfig": "there.Config"}}
    (model / "config.json").write_text(json.dumps(config))
    outputs, _ = retrain(tmp_path, make_inputs(tmp_path, model, ["alpha", "beta", "gamma"]), NONE)
    assert not {"_name_or_path", "auto_map"} & set(json.loads((outputs.checkpoint / "config.json").read_text()))


def test_unnamed_classes_are_the_numbers_of_the_data(learner: Path, tmp_path: Path) -> None:
    outputs, _ = retrain(tmp_path, make_inputs(tmp_path, learner, ["1", "0"]), NONE)
    config = json.loads((outputs.checkpoint / "config.json").read_text())
    assert config["id2label"] == {"0": "0", "1": "1"}
    assert config["label2id"] == {"0": 0, "1": 1}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["alpha", "beta"], "only the model has 'gamma', only the data have none"),
        (["alpha", "beta", "delta"], "only the model has 'gamma', only the data have 'delta'"),
        ([f"label {index}" for index in range(8)], "'label 3', 'label 4' and 3 more"),
    ],
)
def test_other_labels_are_refused_by_name(tiny_bert: Path, tmp_path: Path, labels: list[str], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        retrain(tmp_path, make_inputs(tmp_path, tiny_bert, labels), NONE)
    assert said in caught.value.what
    assert caught.value.where == "config.json: id2label"
    assert "fine-tune" in str(caught.value.fix)


@pytest.mark.parametrize("labels", [["no", "yes"], ["1", "2"]])
def test_unnamed_classes_do_not_say_which_label_they_are(learner: Path, tmp_path: Path, labels: list[str]) -> None:
    with pytest.raises(ModelError, match="does not say which one is") as caught:
        retrain(tmp_path, make_inputs(tmp_path, learner, labels), NONE)
    assert "write the data's labels into id2label" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"0": "alpha", "2": "beta", "3": "gamma"}, "must number its classes from 0 to 2"),
        ({"0": "alpha", "1": "alpha", "2": "gamma"}, "two classes have the name 'alpha'"),
    ],
)
def test_a_wrong_id2label_is_said(tiny_bert: Path, tmp_path: Path, named: dict[str, str], said: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "id2label": named}))
    with pytest.raises(ModelError, match=said):
        retrain(tmp_path, make_inputs(tmp_path, model, ["alpha", "beta", "gamma"]), NONE)


@pytest.mark.parametrize(
    ("sentence", "wanted", "length"), [(None, None, 64), (32, None, 32), (500, None, 64), (32, 40, 40), (None, 66, 66)]
)
def test_texts_are_cut_at_what_the_model_can_take(
    tiny_bert: Path, tmp_path: Path, sentence: int | None, wanted: int | None, length: int
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    if sentence is not None:
        (model / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": sentence}))
    inputs = make_inputs(tmp_path, model, ["alpha", "beta", "gamma"])
    outputs, report = retrain(tmp_path, inputs, NONE, max_length=wanted)
    assert report.facts["max_length"] == length
    assert AutoTokenizer.from_pretrained(outputs.checkpoint).model_max_length == length


def test_a_length_past_the_positions_is_refused(tmp_path: Path) -> None:
    # RoBERTa counts positions from 1 past the padding number, here 0: 66 positions are 65 tokens.
    model = make_checkpoint(tmp_path / "model", "roberta", ["alpha", "beta"], type_vocab_size=1)
    inputs = make_inputs(tmp_path, model, ["alpha", "beta"])
    with pytest.raises(ModelError, match="max_length is 66, and the model has positions for 65 tokens"):
        retrain(tmp_path, inputs, NONE, max_length=66)


def test_a_length_that_nobody_says_is_asked_for(tmp_path: Path) -> None:
    model = make_checkpoint(
        tmp_path / "model", "bert", ["alpha", "beta"], max_position_embeddings=1_000_001, hidden_size=4
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(model)
    with pytest.raises(ModelError, match="tells how long a text may be"):
        retrain(tmp_path, make_inputs(tmp_path, model, ["alpha", "beta"]), NONE)
