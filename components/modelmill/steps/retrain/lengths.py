"""How many tokens a text may have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelmill.core.errors import ModelError
from modelmill.targets.pytorch import max_length_of, positions_of


def max_length(directory: Path, model: Any, processor: Any, wanted: int | None) -> int:
    """Tokens at which texts are cut, special ones included.

    Args:
        directory: The checkpoint, for a sentence encoder's sentence_bert_config.json.
        model: The loaded model.
        processor: Its tokenizer.
        wanted: What the recipe says, or None for the model's own: the smallest of what its positions, its
            tokenizer and its sentence_bert_config.json give.

    Raises:
        ModelError: ``wanted`` is more than the model has positions for, or nothing says a length.
    """
    if wanted is None:
        trained = _sentence_length(directory)
        if trained is None:
            return max_length_of(model, processor)
        return min(trained, positions_of(model), int(processor.model_max_length))
    if wanted > positions_of(model):
        what = f"max_length is {wanted}, and the model has positions for {positions_of(model)} tokens"
        raise ModelError(what, where="model.max_length", fix=f"give {positions_of(model)} at most")
    return wanted


def _sentence_length(directory: Path) -> int | None:
    """``max_seq_length``, with which a sentence encoder was trained, where the checkpoint says it."""
    path = directory / "sentence_bert_config.json"
    if not path.is_file():
        return None
    try:
        length = json.loads(path.read_text("utf-8"))["max_seq_length"]
    except (ValueError, LookupError, TypeError) as error:
        what = f"sentence_bert_config.json gives no max_seq_length: {error}"
        raise ModelError(what, where=str(path), fix="repair the file, or remove it") from error
    return length if isinstance(length, int) and length > 1 else None
