"""Which embeddings a training moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_data import fine_tune, make_inputs, make_rows, retrain
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from modelmill.steps.retrain.embeddings import occurring_tokens
from modelmill.tasks.text_classification import TextClassification
from small_models import make_checkpoint

pytestmark = pytest.mark.usefixtures("one_processor")
TASK = TextClassification()


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "albert", "electra", "mpnet", "deberta-v2"])
def test_only_tokens_that_occur_are_moved(tmp_path: Path, architecture: str) -> None:
    changes = {"embedding_size": 32} if architecture in {"albert", "electra"} else {}
    model = make_checkpoint(tmp_path / "model", architecture, **changes)
    outputs, _ = retrain(tmp_path, make_inputs(tmp_path, model), fine_tune(epochs=1))
    before, after = load_file(model / "model.safetensors"), load_file(outputs.checkpoint / "model.safetensors")
    assert {name: value.shape for name, value in before.items() if "classif" not in name} == {
        name: value.shape for name, value in after.items() if "classif" not in name
    }
    name = next(name for name in before if name.endswith("word_embeddings.weight"))
    moved = (before[name] != after[name]).any(dim=1).numpy()
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [*make_rows(120, 1), *make_rows(30, 2)]
    occurring = np.unique(np.concatenate([row["input_ids"] for row in TASK.encode(tokenizer, rows, 64)]))
    assert set(np.flatnonzero(moved)) - {tokenizer.pad_token_id} == set(occurring) - {tokenizer.pad_token_id}
    assert 40 < len(occurring) < len(tokenizer)


def test_the_answers_with_a_cut_table_are_the_same(learner: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(learner).eval()
    tokenizer = AutoTokenizer.from_pretrained(learner)
    features = TASK.encode(tokenizer, make_rows(8, 3), 64)
    batch = {name: torch.from_numpy(value) for name, value in TASK.collate(tokenizer, features).items()}
    table = model.get_input_embeddings()
    with torch.no_grad():
        whole = model(**batch).logits
        with occurring_tokens(model, tokenizer, features):
            cut = model(**batch).logits
            assert model.get_input_embeddings().weight.shape[0] < table.num_embeddings
        assert model.get_input_embeddings() is table
        assert torch.equal(whole, cut)
        assert torch.equal(whole, model(**batch).logits)
