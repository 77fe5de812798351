"""A recipe as its author would write it: YAML, in reading order."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from modelmill.core.contract import JSON

# Recipes reach the report through JSON with sorted keys; this is the order in which the documentation writes them.
_ORDER = (
    "name", "task", "model", "data", "retrain", "targets", "gate", "publish",
    "source", "reader", "columns", "train", "tune", "calibrate", "evaluate", "limit",
    "method", "epochs", "device", "runtime", "precision",
    "max_drop_points", "confidence", "min_speedup", "max_size_ratio", "min_metric", "min_rows",
    "channel", "require",
)  # fmt: skip
_RANK = {name: rank for rank, name in enumerate(_ORDER)}


def recipe_yaml(recipe: Mapping[str, JSON]) -> str:
    """The recipe as YAML; equal recipes give equal text, whatever the order of their keys."""
    return yaml.safe_dump(_ordered(dict(recipe)), sort_keys=False, allow_unicode=True, width=100)


def _ordered(value: JSON) -> JSON:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value, key=lambda key: (_RANK.get(key, len(_RANK)), key))}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value
