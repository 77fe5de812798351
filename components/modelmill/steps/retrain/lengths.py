"""How many tokens a text may have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from modelmill.core.errors import ModelError

# What tokenizers say when nobody told them: int(1e30). No encoder takes a million tokens.
_UNKNOWN = 1_000_000


def max_length(directory: Path, model: Any, processor: Any, wanted: int | None) -> int:
    """Tokens at which texts are cut, special ones included.

    Args:
        directory: The checkpoint, for a sentence encoder's sentence_bert_config.json.
        model: The loaded model.
        processor: Its tokenizer.
        wanted: What the recipe says, or None for the model's own: the smallest of what its position embeddings,
            its tokenizer and its sentence_bert_config.json give.

    Raises:
        ModelError: ``wanted`` is more than the model has positions for, or nothing says a length.
    """
    positions = _positions(model)
    if wanted is not None:
        if wanted > positions:
            what = f"max_length is {wanted}, and the model has positions for {positions} tokens"
            raise ModelError(what, where="model.max_length", fix=f"give {positions} at most")
        return wanted
    found = min(positions, int(processor.model_max_length), _sentence_length(directory))
    if found >= _UNKNOWN:
        what = "neither the model nor its tokenizer says how many tokens a text may have"
        raise ModelError(what, where=str(directory), fix="give model.max_length in the recipe")
    return found


def _positions(model: Any) -> int:
    """Positions that tokens can take.

    RoBERTa and its kin number positions from the padding number + 1 on, so that ``max_position_embeddings`` 514
    is 512 tokens.
    """
    limits = [_UNKNOWN]
    configured = getattr(model.config, "max_position_embeddings", None)
    if isinstance(configured, int) and configured > 0:
        limits.append(configured)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - unused)
    return min(limits)


def _sentence_length(directory: Path) -> int:
    path = directory / "sentence_bert_config.json"
    if not path.is_file():
        return _UNKNOWN
    try:
        document = json.loads(path.read_text("utf-8"))
        length = document.get("max_seq_length")
    except (ValueError, AttributeError) as error:
        what = f"sentence_bert_config.json is no JSON object: {error}"
        raise ModelError(what, where=str(path), fix="repair the file, or remove it") from error
    return length if isinstance(length, int) and length > 1 else _UNKNOWN
