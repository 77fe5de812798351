"""The PyTorch baseline: a checkpoint as its user runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from modelmill.targets.pytorch import PytorchSession, load_checkpoint, quiet_transformers
from modelmill.tasks.text_classification import TextClassification
from small_models import make_checkpoint

TASK = TextClassification()
ROWS = [{"text": "my card is lost"}, {"text": "top up", "text_pair": "why is it pending"}]


def test_logits_are_those_of_transformers(tiny_bert: Path) -> None:
    model, processor = load_checkpoint(tiny_bert, TASK)
    session = PytorchSession(model, processor, TASK, threads=1)
    found = session.run(TASK.collate(processor, TASK.encode(processor, ROWS, 64)))["logits"]
    theirs = AutoModelForSequenceClassification.from_pretrained(tiny_bert).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    for row, logits in zip(ROWS, found, strict=True):
        with torch.no_grad():
            expected = theirs(**tokenizer(row["text"], row.get("text_pair"), return_tensors="pt")).logits[0]
        assert np.abs(logits - expected.numpy()).max() < 1e-6
    assert found.dtype == np.float32


@pytest.mark.parametrize("architecture", ["distilbert", "roberta", "electra", "albert", "mpnet", "deberta-v2"])
def test_other_architectures_run(tmp_path: Path, architecture: str) -> None:
    changes = {"embedding_size": 32} if architecture in {"albert", "electra"} else {}
    model, processor = load_checkpoint(make_checkpoint(tmp_path, architecture, **changes), TASK)
    session = PytorchSession(model, processor, TASK, threads=1)
    assert session.run(TASK.sample(processor, 2, 7))["logits"].shape == (2, 2)


def test_columns_that_the_model_does_not_take_are_ignored(tiny_bert: Path) -> None:
    model, processor = load_checkpoint(tiny_bert, TASK)
    session = PytorchSession(model, processor, TASK, threads=1)
    batch = TASK.sample(processor, 2, 7)
    other = {**batch, "index": np.arange(2)}
    assert np.array_equal(session.run(batch)["logits"], session.run(other)["logits"])


def test_the_session_sets_the_thread_count(tiny_bert: Path) -> None:
    before = torch.get_num_threads()
    try:
        PytorchSession(*load_checkpoint(tiny_bert, TASK), TASK, threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(make_checkpoint(tmp_path)).half().save_pretrained(tmp_path)
    model, _ = load_checkpoint(tmp_path, TASK)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_loading_is_quiet_and_leaves_transformers_as_it_was(tiny_bert: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    load_checkpoint(tiny_bert, TASK)
    assert capfd.readouterr() == ("", "")
    with quiet_transformers():
        assert not transformers_logging.is_progress_bar_enabled()
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before
