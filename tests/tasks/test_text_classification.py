"""What the task text-classification makes of rows, and of what a model says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from modelmill.core.errors import DataError, ModelError, RecipeError
from modelmill.tasks import registry
from modelmill.tasks.text_classification import TextClassification
from small_models import make_checkpoint, make_tokenizer

TASK = TextClassification()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="module")
def cutting_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """A tokenizer whose file cuts at 8 tokens and pads to 16, as all-MiniLM-L6-v2's does at 128."""
    directory = tmp_path_factory.mktemp("cutting")
    make_tokenizer().save_pretrained(directory)
    inner = Tokenizer.from_file(str(directory / "tokenizer.json"))
    inner.enable_truncation(8)
    inner.enable_padding(length=16)
    inner.save(str(directory / "tokenizer.json"))
    return AutoTokenizer.from_pretrained(directory)


def test_the_registry_loads_nothing_heavy() -> None:
    code = (
        "import sys, modelmill.tasks.registry;"
        "print([m for m in ('torch', 'transformers', 'evaluate', 'datasets', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_task_is_refused_with_the_names_of_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"use one of: .*text-classification"):
        registry.get("text-clasification")


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"label": "a"}, "the column 'text' is missing"),
        ({"text": None, "label": "a"}, "the column 'text' is missing"),
        ({"text": " \n", "label": "a"}, "the column 'text' is empty"),
        ({"text": 3, "label": "a"}, "the column 'text' must hold text, and holds int '3'"),
        ({"text": "\ud83d", "label": "a"}, "the column 'text' holds half of a surrogate pair"),
        ({"text": "x", "text_pair": "", "label": "a"}, "the column 'text_pair' is empty"),
        ({"text": "x"}, "the column 'label' is missing"),
        ({"text": "x", "label": " "}, "the column 'label' is empty"),
        ({"text": "x", "label": 0.5}, "the column 'label' must hold a name or a whole number, and holds 0.5"),
        (
            {"text": "x", "label": True},
            "the column 'label' must hold a name or a whole number, and holds True",
        ),
    ],
)
def test_a_wrong_row_is_said_by_its_column(row: dict[str, object], wrong: str) -> None:
    assert str(TASK.check_row(row)).startswith(wrong)  # type: ignore[arg-type]


def test_good_rows_pass() -> None:
    assert TASK.check_row({"text": "x", "label": "a"}) is None
    assert TASK.check_row({"text": "x", "text_pair": "y", "label": 0}) is None
    assert TASK.label_of({"label": 7}) == "7"
    assert TASK.text_of({"text": "x", "text_pair": "y"}) == "x | y"


def test_truncation_and_padding_in_the_tokenizers_file_are_set_aside(
    cutting_tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = [{"text": "card " * 12}, {"text": "card"}]
    assert [len(row["input_ids"]) for row in TASK.encode(cutting_tokenizer, rows, 10)] == [10, 3]
    assert [len(row["input_ids"]) for row in TASK.encode(cutting_tokenizer, rows, 64)] == [14, 3]


def test_a_pair_is_cut_at_the_longer_text(tokenizer: PreTrainedTokenizerFast) -> None:
    row = TASK.encode(tokenizer, [{"text": "card " * 30, "text_pair": "my bank"}], 12)[0]
    words = tokenizer.convert_ids_to_tokens(row["input_ids"])
    assert words == ["[CLS]", *["card"] * 7, "[SEP]", "my", "bank", "[SEP]"]
    assert row["token_type_ids"].tolist() == [0] * 9 + [1] * 3
    assert row["input_ids"].dtype == np.int64


def test_texts_and_pairs_may_stand_side_by_side(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"text": "card"}, {"text": "card", "text_pair": "bank"}, {"text": "bank", "text_pair": None}]
    alone = [TASK.encode(tokenizer, [row], 64)[0]["input_ids"].tolist() for row in rows]
    assert [row["input_ids"].tolist() for row in TASK.encode(tokenizer, rows, 64)] == alone
    assert [len(row) for row in alone] == [3, 5, 3]


def test_padding_is_on_the_right_with_the_tokenizers_numbers(tokenizer: PreTrainedTokenizerFast) -> None:
    features = TASK.encode(tokenizer, [{"text": "card"}, {"text": "my bank card"}], 64)
    batch = TASK.collate(tokenizer, features)
    assert {name: value.shape for name, value in batch.items()} == dict.fromkeys(batch, (2, 5))
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch["input_ids"][0, 3:].tolist() == [tokenizer.pad_token_id] * 2
    assert TASK.collate(tokenizer, features, 9)["input_ids"].shape == (2, 9)
    with pytest.raises(ValueError, match="5 tokens, more than the 4"):
        TASK.collate(tokenizer, features, 4)


def test_collate_pads_as_transformers_does(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"text": "card"}, {"text": "my lost card", "text_pair": "top up"}]
    features = TASK.encode(tokenizer, rows, 64)
    theirs = tokenizer.pad([dict(row) for row in features], return_tensors="np")
    ours = TASK.collate(tokenizer, features)
    for name in tokenizer.model_input_names:
        assert np.array_equal(ours[name], theirs[name])


def test_a_tokenizer_without_padding_makes_no_ragged_batch() -> None:
    bare = make_tokenizer()
    bare.pad_token = None
    features = TASK.encode(bare, [{"text": "card"}, {"text": "my card"}], 64)
    assert TASK.collate(bare, features[:1])["input_ids"].shape == (1, 3)
    with pytest.raises(ModelError, match="no padding token"):
        TASK.collate(bare, features)


@pytest.mark.parametrize("length", [1, 2, 5, 64])
def test_samples_have_exactly_the_length_and_only_ordinary_tokens_inside(
    tokenizer: PreTrainedTokenizerFast, length: int
) -> None:
    batch = TASK.sample(tokenizer, 3, length, seed=1)
    assert {value.shape for value in batch.values()} == {(3, length)}
    assert batch["attention_mask"].all()
    assert (batch["input_ids"][:, 0] == tokenizer.cls_token_id).all()
    if length > 1:
        assert (batch["input_ids"][:, -1] == tokenizer.sep_token_id).all()
        assert not np.isin(batch["input_ids"][:, 1:-1], tokenizer.all_special_ids).any()
    assert np.array_equal(batch["input_ids"], TASK.sample(tokenizer, 3, length, seed=1)["input_ids"])


@pytest.mark.parametrize(
    ("architecture", "inputs"),
    [
        ("bert", ("input_ids", "attention_mask", "token_type_ids")),
        ("distilbert", ("input_ids", "attention_mask")),
        ("roberta", ("input_ids", "attention_mask")),
    ],
)
def test_the_graph_takes_what_the_model_knows(tmp_path: Path, architecture: str, inputs: tuple[str, ...]) -> None:
    changes = {"type_vocab_size": 1} if architecture == "roberta" else {}
    model = AutoModelForSequenceClassification.from_pretrained(make_checkpoint(tmp_path, architecture, **changes))
    unit = TASK.export_units(model)[0]
    assert (unit.role, unit.inputs, unit.outputs) == ("model", inputs, ("logits",))
    assert unit.dynamic_axes["input_ids"] == {0: "batch", 1: "sequence"}
    chain = TASK.execution({"model": inputs})
    assert chain.stages[0].feeds == {name: name for name in inputs}
    assert chain.stages[0].gives == {"logits": "logits"}


def test_the_graph_has_no_input_that_the_tokenizer_does_not_give(tiny_bert: Path) -> None:
    bare = make_tokenizer()
    bare.model_input_names = ["input_ids", "attention_mask"]
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    assert TASK.export_units(model, bare)[0].inputs == ("input_ids", "attention_mask")
    assert set(TASK.encode(bare, [{"text": "card"}], 8)[0]) == {"input_ids", "attention_mask"}


def test_references_are_numbers_and_an_unknown_label_names_its_row() -> None:
    rows = [{"id": "a.jsonl:1", "label": "x"}, {"id": "a.jsonl:2", "label": 3}]
    assert TASK.references(rows, ["3", "x"]).tolist() == [1, 0]
    with pytest.raises(DataError, match="'3' is not among the 1 labels") as caught:
        TASK.references(rows, ["x"])
    assert caught.value.where == "a.jsonl:2"


def test_the_first_of_equal_logits_wins() -> None:
    assert TASK.decode(np.asarray([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]], dtype=np.float32)).tolist() == [0, 1]
    assert TASK.correct(np.asarray([0, 1]), np.asarray([0, 2])).tolist() == [True, False]


def test_the_task_has_the_names_of_its_documents() -> None:
    assert json.dumps(TASK.metric.model_dump(mode="json")) == (
        '{"name": "accuracy", "direction": "higher", "unit": "share"}'
    )
