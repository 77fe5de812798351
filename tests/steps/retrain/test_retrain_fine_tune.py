"""What fine-tuning writes, and when it stops."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_data import LABELS, fine_tune, make_inputs, make_rows, retrain
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from modelmill.core.errors import DataError, ModelError
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import Row
from modelmill.targets.pytorch import PytorchSession, load_checkpoint
from modelmill.tasks.text_classification import TextClassification
from small_models import make_checkpoint

pytestmark = pytest.mark.usefixtures("one_processor")
TASK = TextClassification()


class Facts(SilentProgress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def fact(self, text: str) -> None:
        self.said.append(text)


def accuracy(checkpoint: Path, rows: Sequence[Row], labels: Sequence[str]) -> float:
    model, processor = load_checkpoint(checkpoint, TASK)
    session = PytorchSession(model, processor, TASK, threads=1)
    logits = session.run(TASK.collate(processor, TASK.encode(processor, rows, 64)))["logits"]
    return float((TASK.decode(logits) == TASK.references(rows, labels)).mean())


def test_a_model_learns_its_labels_and_is_written_whole(learner: Path, tmp_path: Path) -> None:
    progress = Facts()
    outputs, report = retrain(tmp_path, make_inputs(tmp_path, learner), fine_tune(), progress)
    names = {path.name for path in outputs.checkpoint.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    config = json.loads((outputs.checkpoint / "config.json").read_text())
    assert config["id2label"] == {str(index): label for index, label in enumerate(LABELS)}
    assert config["label2id"] == {label: index for index, label in enumerate(LABELS)}
    tuned = report.facts["tune_accuracy"]
    assert isinstance(tuned, list)
    assert len(tuned) == 3
    assert accuracy(outputs.checkpoint, make_rows(30, 2), LABELS) == max(tuned) >= 0.9  # type: ignore[type-var]
    assert report.facts["steps"] == 3 * 8
    assert report.facts["threads"] == 1
    epochs = [text for text in progress.said if text.startswith("epoch")]
    assert [text.split(":")[0] for text in epochs] == [f"epoch {number} of 3" for number in (1, 2, 3)]
    assert "accuracy on the tune rows" in epochs[0]


def test_nothing_written_names_this_machine(learner: Path, tmp_path: Path) -> None:
    outputs, _ = retrain(tmp_path, make_inputs(tmp_path, learner), fine_tune(epochs=1))
    for path in outputs.checkpoint.glob("*.json"):
        text = path.read_text()
        assert str(tmp_path.parent) not in text
        assert str(learner) not in text
        assert "_name_or_path" not in text
        assert "local_files_only" not in text


def test_pairs_train(learner: Path, tmp_path: Path) -> None:
    outputs, _ = retrain(tmp_path, make_inputs(tmp_path, learner, train=240, paired=True), fine_tune(epochs=6))
    rows = make_rows(30, 2, paired=True)
    assert accuracy(outputs.checkpoint, rows, LABELS) >= 0.9
    assert accuracy(outputs.checkpoint, [{**row, "text_pair": None} for row in rows], LABELS) <= 0.5


@pytest.mark.parametrize("architecture", ["roberta", "distilbert"])
def test_other_architectures_train(tmp_path: Path, architecture: str) -> None:
    changes = {"type_vocab_size": 1} if architecture == "roberta" else {}
    model = make_checkpoint(tmp_path / "model", architecture, **changes)
    outputs, report = retrain(tmp_path, make_inputs(tmp_path, model), fine_tune(epochs=1))
    before = load_file(model / "model.safetensors")
    after = load_file(outputs.checkpoint / "model.safetensors")
    assert set(after) == set(before)
    assert report.facts["max_length"] == 64


def test_a_head_of_equal_shape_for_other_labels_is_made_anew(tiny_bert: Path, tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, tiny_bert)
    outputs, _ = retrain(tmp_path, inputs, fine_tune(epochs=1, learning_rate=1e-9, weight_decay=0, seed=1))
    before = load_file(tiny_bert / "model.safetensors")
    after = load_file(outputs.checkpoint / "model.safetensors")
    assert (after["classifier.weight"] - before["classifier.weight"]).abs().max() > 0.01
    query = "bert.encoder.layer.0.attention.self.query.weight"
    assert (after[query] - before[query]).abs().max() < 1e-6


def test_a_head_for_the_same_labels_is_kept_in_its_order(tiny_bert: Path, tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, tiny_bert, ["gamma", "alpha", "beta"])
    outputs, _ = retrain(tmp_path, inputs, fine_tune(epochs=1, learning_rate=1e-9, weight_decay=0))
    config = json.loads((outputs.checkpoint / "config.json").read_text())
    assert config["id2label"] == {"0": "alpha", "1": "beta", "2": "gamma"}
    before = load_file(tiny_bert / "model.safetensors")
    after = load_file(outputs.checkpoint / "model.safetensors")
    assert (after["classifier.weight"] - before["classifier.weight"]).abs().max() < 1e-6


def test_a_new_head_has_a_learning_rate_of_its_own_and_a_kept_one_has_the_bodys(
    tiny_bert: Path, tmp_path: Path
) -> None:
    settings = fine_tune(epochs=1, learning_rate=1e-9, head_learning_rate=1e-2, weight_decay=0)
    moved = {}
    for name, labels in (("new", None), ("kept", ["gamma", "alpha", "beta"])):
        (tmp_path / name).mkdir()
        inputs = make_inputs(tmp_path / name, tiny_bert, *([labels] if labels else []))
        outputs, _ = retrain(tmp_path / name, inputs, settings)
        other, _ = retrain(tmp_path / name / "other", inputs, settings.model_copy(update={"head_learning_rate": 1e-9}))
        after, slow = (
            load_file(outputs.checkpoint / "model.safetensors"),
            load_file(other.checkpoint / "model.safetensors"),
        )
        moved[name] = {key: float((after[key] - slow[key]).abs().max()) for key in after}
    query = "bert.encoder.layer.0.attention.self.query.weight"
    assert moved["new"]["classifier.weight"] > 1e-2
    assert moved["new"][query] < 1e-6
    assert moved["kept"]["classifier.weight"] == 0


@pytest.mark.parametrize(("body", "head"), [(2e-5, 6e-4), (2e-4, 6e-3), (5e-4, 6e-3), (1e-2, 1e-2)])
def test_a_heads_learning_rate_follows_the_bodys_within_bounds(body: float, head: float) -> None:
    assert fine_tune(learning_rate=body).peak_of_new_weights == pytest.approx(head)


def test_the_best_epoch_is_kept_and_training_stops_after_patience(learner: Path, tmp_path: Path) -> None:
    # The tune rows carry the wrong labels: what is learnt makes them worse.
    inputs = make_inputs(tmp_path, learner)
    lines = (inputs.tune / "rows.jsonl").read_text().splitlines()
    turned = {LABELS[index]: LABELS[(index + 1) % 3] for index in range(3)}
    rows = [{**row, "label": turned[row["label"]]} for row in map(json.loads, lines)]
    (inputs.tune / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outputs, report = retrain(tmp_path, inputs, fine_tune(epochs=20, patience=2, learning_rate=5e-3))
    tuned, best, epochs = (report.facts[name] for name in ("tune_accuracy", "best_epoch", "epochs"))
    assert isinstance(tuned, list)
    assert isinstance(best, int)
    assert epochs == len(tuned) == best + 2 < 20
    assert tuned[best - 1] == max(tuned) > tuned[-1]  # type: ignore[type-var]
    assert accuracy(outputs.checkpoint, rows, LABELS) == tuned[best - 1]


def test_without_tune_rows_the_last_epoch_is_kept(learner: Path, tmp_path: Path) -> None:
    _, report = retrain(tmp_path, make_inputs(tmp_path, learner, tune=0), fine_tune(epochs=2))
    assert (report.facts["best_epoch"], report.facts["tune_accuracy"]) == (2, [])


def test_bfloat16_and_float32_both_train(learner: Path, tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, learner)
    losses = {}
    for precision in ("float32", "bfloat16"):
        _, report = retrain(tmp_path / precision, inputs, fine_tune(epochs=1, precision=precision))
        assert report.facts["precision"] == precision
        losses[precision] = report.facts["losses"]
    assert losses["float32"] != losses["bfloat16"]
    assert losses["float32"] == pytest.approx(losses["bfloat16"], rel=0.02)


def test_truncation_baked_into_a_tokenizer_is_gone_and_its_tokens_stay(learner: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    AutoModelForSequenceClassification.from_pretrained(learner).save_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(learner)
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding(length=16)
    tokenizer.save_pretrained(model)
    outputs, _ = retrain(tmp_path, make_inputs(tmp_path, model), fine_tune(epochs=1), max_length=20)
    written = json.loads((outputs.checkpoint / "tokenizer.json").read_text())
    assert (written["truncation"], written["padding"]) == (None, None)
    again = AutoTokenizer.from_pretrained(outputs.checkpoint)
    assert again.model_max_length == 20
    assert len(again("card " * 30, truncation=True)["input_ids"]) == 20
    text = "my card is lost why"
    assert again(text)["input_ids"] == AutoTokenizer.from_pretrained(learner)(text)["input_ids"]


def test_a_diverged_training_says_to_lower_the_learning_rate(learner: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    loud = AutoModelForSequenceClassification.from_pretrained(learner)
    with torch.no_grad():
        loud.bert.embeddings.LayerNorm.weight.fill_(3e38)
    loud.save_pretrained(model)
    AutoTokenizer.from_pretrained(learner).save_pretrained(model)
    with pytest.raises(ModelError, match="the training diverged: at step 1 of 24") as caught:
        retrain(tmp_path, make_inputs(tmp_path, model), fine_tune())
    assert "lower retrain.learning_rate" in str(caught.value.fix)


def test_no_rows_to_train_on_is_said(learner: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows to train on"):
        retrain(tmp_path, make_inputs(tmp_path, learner, train=0), fine_tune())


def test_one_label_is_nothing_to_tell_apart(learner: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fewer than two labels"):
        retrain(tmp_path, make_inputs(tmp_path, learner, ["lost"]), fine_tune())


@pytest.mark.slow
def test_too_little_memory_is_said(learner: Path, tmp_path: Path) -> None:
    wide = make_checkpoint(tmp_path / "model", "bert", intermediate_size=4096, num_hidden_layers=1)
    inputs = make_inputs(tmp_path, wide, train=4096, tune=0)
    code = (
        "import resource, sys, pathlib\n"
        f"sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]!r}\n"
        "from training_data import fine_tune, retrain\n"
        "from modelmill.core.errors import ModelError\n"
        "from modelmill.steps.retrain.contract import Inputs\n"
        f"inputs = Inputs(*map(pathlib.Path, {[str(inputs.model), str(inputs.train), str(inputs.tune)]!r}))\n"
        "used = int(next(l for l in open('/proc/self/status') if l.startswith('VmSize')).split()[1]) * 1024\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))\n"
        "try:\n"
        f"    retrain(pathlib.Path({str(tmp_path)!r}), inputs, fine_tune(batch_size=4096))\n"
        "except ModelError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "the training does not fit into memory" in done.stdout, done.stderr
    assert "lower retrain.batch_size" in done.stdout
