"""Text classification: one text, or a pair of texts, gets one label."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from modelmill.core.contract import JSON
from modelmill.core.errors import DataError, ModelError
from modelmill.core.evidence import Metric
from modelmill.core.model import Chain, Execution, Stage
from modelmill.core.rows import Row
from modelmill.tasks import metrics as measured
from modelmill.tasks.base import Batch, ExportUnit, Features

_ROLE = "model"
_OUTPUT = "logits"
_ENCODED = ("input_ids", "attention_mask", "token_type_ids")


class TextClassification:
    """The task ``text-classification``: columns text, label, and for pairs text_pair."""

    name = "text-classification"
    required_columns: tuple[str, ...] = ("text", "label")
    optional_columns: tuple[str, ...] = ("text_pair",)
    auto_model = "AutoModelForSequenceClassification"
    metric = Metric(name="accuracy", unit="share")
    metrics_judged: tuple[Metric, ...] = (metric, Metric(name="macro_f1", unit="share"))

    def check_row(self, row: Mapping[str, JSON]) -> str | None:
        """What is wrong with a row: a text that is missing, no string or empty, a label that is no name."""
        for column in ("text", *(("text_pair",) if "text_pair" in row else ())):
            wrong = _wrong_text(row, column)
            if wrong:
                return wrong
        label = row.get("label")
        if label is None:
            return "the column 'label' is missing"
        if isinstance(label, bool) or not isinstance(label, str | int):
            return f"the column 'label' must hold a name or a whole number, and holds {label!r}"
        if isinstance(label, str) and not label.strip():
            return "the column 'label' is empty"
        return None

    def label_of(self, row: Row) -> str | None:
        """The row's label; whole numbers are labels by their digits."""
        return str(row["label"])

    def text_of(self, row: Row) -> str:
        """The text, or ``text | text_pair``."""
        pair = row.get("text_pair")
        return str(row["text"]) if pair is None else f"{row['text']} | {pair}"

    def encode(self, processor: Any, rows: Sequence[Row], max_length: int) -> list[Features]:
        """Tokenise rows, each cut at ``max_length`` tokens (of a pair, the longer text first), none padded.

        What the tokenizer's file says about truncation and padding is set aside: all-MiniLM-L6-v2's cuts and
        pads to 128, whatever the model can take.
        """
        names = _inputs_of(processor)
        found: list[Features | None] = [None] * len(rows)
        for paired in (False, True):
            chosen = [index for index, row in enumerate(rows) if (row.get("text_pair") is not None) == paired]
            if not chosen:
                continue
            texts = [str(rows[index]["text"]) for index in chosen]
            pairs = [str(rows[index]["text_pair"]) for index in chosen] if paired else None
            encoded = processor(
                texts, pairs, truncation="longest_first", padding=False, max_length=max_length, verbose=False
            )
            for position, index in enumerate(chosen):
                found[index] = {name: np.asarray(encoded[name][position], dtype=np.int64) for name in names}
        return cast("list[Features]", found)

    def collate(self, processor: Any, features: Sequence[Features], length: int | None = None) -> Batch:
        """Pad rows on the right to ``length`` tokens, or to the longest of them.

        Raises:
            ValueError: A row is longer than ``length``.
            ModelError: Rows must be padded, and the tokenizer has no padding token.
        """
        lengths = [len(row["input_ids"]) for row in features]
        wanted = max(lengths) if length is None else length
        if max(lengths) > wanted:
            what = f"a row has {max(lengths)} tokens, more than the {wanted} to pad to"
            raise ValueError(what)
        if min(lengths) < wanted and processor.pad_token_id is None:
            what = "the tokenizer has no padding token, so texts of different lengths make no batch"
            raise ModelError(what, where="tokenizer_config.json: pad_token", fix="name a pad_token there")
        padding = {
            "input_ids": processor.pad_token_id or 0,
            "token_type_ids": processor.pad_token_type_id,
            "attention_mask": 0,
        }
        batch: Batch = {}
        for name in features[0]:
            filled = np.full((len(features), wanted), padding[name], dtype=np.int64)
            for index, row in enumerate(features):
                filled[index, : lengths[index]] = row[name]
            batch[name] = filled
        return batch

    def references(self, rows: Sequence[Row], labels: Sequence[str]) -> np.ndarray:
        """The number of each row's label: int64, shape (rows,).

        Raises:
            DataError: A row's label is not among ``labels``.
        """
        numbers = {label: index for index, label in enumerate(labels)}
        for row in rows:
            label = self.label_of(row)
            if label not in numbers:
                what = f"the label {label!r} is not among the {len(labels)} labels of the training rows"
                fix = "train on rows of that label, or leave the row out"
                raise DataError(what, where=str(row.get("id")), fix=fix)
        return np.asarray([numbers[str(self.label_of(row))] for row in rows], dtype=np.int64)

    def sample(self, processor: Any, batch_size: int, length: int, seed: int = 0) -> Batch:
        """A batch of random tokens of exactly ``length``: the tokenizer's frame around ordinary ones.

        Where ``length`` is shorter than the frame ([CLS] … [SEP]), the frame is cut.
        """
        special = set(processor.all_special_ids)
        ordinary = np.asarray(sorted(set(processor.get_vocab().values()) - special), dtype=np.int64)
        prefix, suffix = _frame(processor)
        inner = length - len(prefix) - len(suffix)
        drawn = np.random.default_rng(seed).choice(ordinary, size=(batch_size, max(inner, 0)))
        framed = np.concatenate(
            [np.tile(prefix, (batch_size, 1)), drawn, np.tile(suffix, (batch_size, 1))], axis=1
        ).astype(np.int64)[:, :length]
        filled = {
            "input_ids": framed,
            "attention_mask": np.ones_like(framed),
            "token_type_ids": np.zeros_like(framed),
        }
        return {name: filled[name] for name in _inputs_of(processor)}

    def export_units(self, model: Any, processor: Any | None = None) -> list[ExportUnit]:
        """One graph, from what the tokenizer gives and the model takes to the logits.

        Args:
            model: The checkpoint, loaded.
            processor: Its tokenizer; without it, what BERT-like tokenizers give is assumed.
        """
        taken = inspect.signature(model.forward).parameters
        given = _ENCODED if processor is None else _inputs_of(processor)
        # RoBERTa's forward takes segment numbers, but knows one segment only: its tokenizer gives none.
        one_segment = getattr(model.config, "type_vocab_size", 2) < 2
        useless = {"token_type_ids"} if one_segment else set()
        inputs = tuple(name for name in _ENCODED if name in taken and name in given and name not in useless)
        axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "sequence"} for name in inputs}
        axes[_OUTPUT] = {0: "batch"}
        return [ExportUnit(role=_ROLE, module=model, inputs=inputs, outputs=(_OUTPUT,), dynamic_axes=axes)]

    def execution(self, inputs: Mapping[str, Sequence[str]]) -> Execution:
        """One graph, run once."""
        feeds = {name: name for name in inputs[_ROLE]}
        return Chain(stages=[Stage(component=_ROLE, feeds=feeds, gives={_OUTPUT: _OUTPUT})])

    def outputs_of(self, values: Mapping[str, Any]) -> Any:
        """The logits: float32, shape (batch, classes)."""
        logits: np.ndarray = values[_OUTPUT]
        return logits

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """The number of the largest logit, the first one of equals: int64, shape (rows,)."""
        return np.asarray(np.argmax(outputs, axis=-1), dtype=np.int64)

    def correct(self, predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """bool, shape (rows,): whether the class is the reference's."""
        return np.asarray(predicted == reference)

    def weighted_metric(
        self, name: str, predicted: np.ndarray, reference: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """``accuracy`` or ``macro_f1`` of rows that count as often as ``weights`` says: float64, shape (resamples,)."""
        right = predicted == reference
        if name == self.metric.name:
            return np.asarray(weights @ right / weights.sum(axis=1))
        classes, number = np.unique(np.concatenate([predicted, reference]), return_inverse=True)
        said, is_so = np.eye(len(classes))[number.reshape(2, -1)]
        # As in the metric's own module: 2TP over predictions plus references, of the classes that occur.
        both = weights @ (said + is_so)
        hits = 2 * (weights @ (said * right[:, None]))
        occurs = both > 0
        return np.asarray((hits / np.where(occurs, both, 1)).sum(axis=1) / occurs.sum(axis=1))

    def metrics(self, predicted: np.ndarray, reference: np.ndarray, labels: Sequence[str]) -> dict[str, JSON]:
        """``accuracy``, ``macro_f1`` and ``per_class`` (label → share of its rows that are right).

        Classes without rows are not in ``per_class``.
        """
        per_class = measured.compute(measured.PER_CLASS_ACCURACY, predicted, reference)["per_class"]
        shares = cast("dict[int, float]", per_class)
        return {
            **measured.compute(measured.ACCURACY, predicted, reference),
            **measured.compute(measured.MACRO_F1, predicted, reference),
            "per_class": {labels[index]: share for index, share in shares.items()},
        }


def _wrong_text(row: Mapping[str, JSON], column: str) -> str | None:
    text = row.get(column)
    if text is None:
        return f"the column {column!r} is missing"
    if not isinstance(text, str):
        return f"the column {column!r} must hold text, and holds {type(text).__name__} {str(text)[:40]!r}"
    if not text.strip():
        return f"the column {column!r} is empty"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return f"the column {column!r} holds half of a surrogate pair, which is no Unicode text"
    return None


def _inputs_of(processor: Any) -> tuple[str, ...]:
    """What the tokenizer gives a model, in a fixed order."""
    return tuple(name for name in _ENCODED if name in processor.model_input_names)


def _frame(processor: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after one text."""
    whole = list(processor("a")["input_ids"])
    bare = list(processor("a", add_special_tokens=False)["input_ids"])
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return whole, []
