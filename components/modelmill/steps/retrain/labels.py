"""Labels of a model's configuration and of the data, brought together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelmill.core.errors import ModelError

_WHERE = "config.json: id2label"


def labels_of(config: Any) -> list[str]:
    """The labels of a transformers configuration, in the order of the model's outputs.

    Raises:
        ModelError: The numbers are not 0 to n - 1, or two classes have one name.
    """
    named: Mapping[int, Any] = config.id2label or {}
    if sorted(named) != list(range(len(named))):
        what = f"id2label must number its classes from 0 to {len(named) - 1}, and has {sorted(named)[:10]}"
        raise ModelError(what, where=_WHERE, fix="number the classes in the order of the model's outputs")
    labels = [str(named[index]) for index in range(len(named))]
    if len(set(labels)) < len(labels):
        what = f"two classes have the name {next(name for name in labels if labels.count(name) > 1)!r}"
        raise ModelError(what, where=_WHERE, fix="give every class its own name")
    return labels


def same_labels(model: Sequence[str], data: Sequence[str]) -> list[str] | None:
    """The labels in the order of the model's outputs where model and data mean the same ones, else None.

    Two cases are the same: equal names in any order, and classes without names of their own (LABEL_0, LABEL_1 …,
    which transformers writes where nobody said more) for data whose labels are the numbers 0 to n - 1.
    """
    if set(model) == set(data):
        return list(model)
    if _unnamed(model) and set(data) == {str(index) for index in range(len(model))}:
        return [str(index) for index in range(len(model))]
    return None


def require_same(model: Sequence[str], data: Sequence[str]) -> list[str]:
    """As `same_labels`, where nothing is trained and nothing else will do.

    Raises:
        ModelError: Model and data mean different labels; it names what is only here and only there.
    """
    labels = same_labels(model, data)
    if labels is not None:
        return labels
    if _unnamed(model) and len(model) == len(data):
        what = f"the model calls its {len(model)} classes {model[0]} …, which does not say which one is {data[0]!r}"
        fix = "write the data's labels into id2label, in the order of the model's outputs, or fine-tune"
    else:
        here, there = _few(set(model) - set(data)), _few(set(data) - set(model))
        what = f"the labels of the model are not the data's: only the model has {here}, only the data have {there}"
        fix = "take data with the model's labels, or fine-tune (retrain: {method: fine-tune})"
    raise ModelError(what, where=_WHERE, fix=fix)


def _unnamed(labels: Sequence[str]) -> bool:
    return list(labels) == [f"LABEL_{index}" for index in range(len(labels))]


def _few(labels: set[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(labels)[:5])
    return f"{shown} and {len(labels) - 5} more" if len(labels) > 5 else shown or "none"
