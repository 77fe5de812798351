"""Goldens: what of each architecture is fused, by us and by the runtime when it loads the graph.

An upgrade of the exporter, of transformers or of ONNX Runtime that loses a fusion fails here by the family's name. A
gain fails, too: write it down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest

from graph_operators import operators
from lane_steps import run_export, run_optimize
from small_models import make_checkpoint

COUNTED = (
    "Attention",
    "BiasGelu",
    "Erf",
    "FastGelu",
    "Gelu",
    "LayerNormalization",
    "ReduceMean",
    "SkipLayerNormalization",
    "Softmax",
)


@dataclass(frozen=True)
class Family:
    """A random model of two layers (four for ModernBERT's two kinds), and its operators once loaded."""

    operators: dict[str, int]
    changes: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "albert": Family({"Attention": 2, "FastGelu": 2, "LayerNormalization": 5}, {"embedding_size": 32}),
    "bert": Family({"Attention": 2, "BiasGelu": 2, "LayerNormalization": 5}),
    "camembert": Family({"Attention": 2, "BiasGelu": 2, "SkipLayerNormalization": 5}),
    "deberta-v2": Family(
        {"BiasGelu": 2, "Gelu": 1, "LayerNormalization": 5, "Softmax": 2},
        {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "max_relative_positions": -1,
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "distilbert": Family(
        {"Attention": 2, "BiasGelu": 2, "LayerNormalization": 5},
        {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2},
    ),
    "electra": Family({"Attention": 2, "BiasGelu": 2, "Gelu": 1, "LayerNormalization": 5}, {"embedding_size": 32}),
    "modernbert": Family(
        {"Gelu": 5, "LayerNormalization": 10, "Softmax": 4},
        {"local_attention": 8, "global_attn_every_n_layers": 2, "num_hidden_layers": 4},
    ),
    "mpnet": Family({"BiasGelu": 2, "LayerNormalization": 4, "SkipLayerNormalization": 1, "Softmax": 2}),
    "roberta": Family({"Attention": 2, "BiasGelu": 2, "SkipLayerNormalization": 5}),
    "xlm-roberta": Family({"Attention": 2, "BiasGelu": 2, "SkipLayerNormalization": 5}),
}


def loaded_operators(model: Path, folder: Path) -> dict[str, int]:
    """What ONNX Runtime runs: the graph as it is after its own optimizations."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "loaded.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    counts = operators(onnx.load(folder / "loaded.onnx").graph)
    return {name: counts[name] for name in COUNTED if counts[name]}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_fused_stays_fused(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    make_checkpoint(tmp_path / "checkpoint", name, **family.changes)
    run_export(tmp_path / "checkpoint", tmp_path / "exported")
    run_optimize(tmp_path / "exported", tmp_path / "optimized")
    assert loaded_operators(tmp_path / "optimized" / "model.onnx", tmp_path) == family.operators
