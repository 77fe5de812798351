"""Goldens: what of each architecture is fused, by us and by the runtime when it loads the graph, float32 and int8.

An upgrade of the exporter, of transformers or of ONNX Runtime that loses a fusion fails here by the family's name. A
gain fails, too: write it down.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import openvino
import pytest

from graph_operators import operators
from lane_steps import TASK, make_rows, run_export, run_optimize
from modelmill.core.progress import SilentProgress
from modelmill.steps.calibrate_quantize.contract import Scheme, Variant
from modelmill.steps.calibrate_quantize.variants import make_variant
from modelmill.targets.base import Precision, Runtime
from modelmill.targets.onnxruntime_cpu import open_graph, session_options
from modelmill.tasks import registry
from small_models import make_checkpoint

COUNTED = (
    "Attention",
    "BiasGelu",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "Erf",
    "FastGelu",
    "FusedGemm",
    "FusedMatMul",
    "Gelu",
    "Gemm",
    "LayerNormalization",
    "MatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QAttention",
    "QLinearMatMul",
    "QuantizeLinear",
    "ReduceMean",
    "SkipLayerNormalization",
    "Softmax",
)
"""Of ONNX Runtime's graph as loaded: fused operators, products, quantizers, and what they would be made of."""
OPENVINO_COUNTED = ("FullyConnected", "MVN", "RoPE")
"""Of OpenVINO's compiled graph: what does not depend on the processor's instructions, as attention's form does."""
FAST = ("distilbert", "roberta")


@dataclass(frozen=True)
class Family:
    """A random model of two layers (four for ModernBERT's two kinds), and its operators once loaded.

    Attributes:
        float32: On ONNX Runtime.
        dynamic: In dynamic int8 on ONNX Runtime.
        static: In static int8 on ONNX Runtime.
        openvino: On OpenVINO, in float32 and in static int8 alike; in int8 every FullyConnected is.
        changes: Of the architecture's sizes.
    """

    float32: dict[str, int]
    dynamic: dict[str, int]
    static: dict[str, int]
    openvino: dict[str, int]
    changes: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "albert": Family(
        float32={"Attention": 2, "FastGelu": 2, "FusedGemm": 1, "Gemm": 1, "LayerNormalization": 5, "MatMul": 7},
        dynamic={
            "DynamicQuantizeLinear": 2,
            "DynamicQuantizeMatMul": 9,
            "FastGelu": 2,
            "LayerNormalization": 5,
            "QAttention": 2,
        },
        static={
            "FastGelu": 2,
            "LayerNormalization": 5,
            "MatMulIntegerToFloat": 9,
            "QAttention": 2,
            "QuantizeLinear": 11,
        },
        openvino={"FullyConnected": 15, "MVN": 5},
        changes={"embedding_size": 32},
    ),
    "bert": Family(
        float32={"Attention": 2, "BiasGelu": 2, "FusedGemm": 1, "Gemm": 1, "LayerNormalization": 5, "MatMul": 6},
        dynamic={
            "DynamicQuantizeLinear": 2,
            "DynamicQuantizeMatMul": 8,
            "Gelu": 2,
            "LayerNormalization": 5,
            "QAttention": 2,
        },
        static={
            "BiasGelu": 2,
            "LayerNormalization": 5,
            "MatMulIntegerToFloat": 8,
            "QAttention": 2,
            "QuantizeLinear": 10,
        },
        openvino={"FullyConnected": 14, "MVN": 5},
    ),
    "camembert": Family(
        float32={"Attention": 2, "BiasGelu": 2, "FusedGemm": 1, "Gemm": 1, "LayerNormalization": 5, "MatMul": 6},
        dynamic={
            "DynamicQuantizeLinear": 2,
            "DynamicQuantizeMatMul": 8,
            "Gelu": 2,
            "LayerNormalization": 5,
            "QAttention": 2,
        },
        static={
            "BiasGelu": 2,
            "LayerNormalization": 5,
            "MatMulIntegerToFloat": 8,
            "QAttention": 2,
            "QuantizeLinear": 10,
        },
        openvino={"FullyConnected": 14, "MVN": 5},
    ),
    "deberta-v2": Family(
        float32={
            "BiasGelu": 2,
            "FusedMatMul": 6,
            "Gelu": 1,
            "Gemm": 2,
            "LayerNormalization": 5,
            "MatMul": 14,
            "Softmax": 2,
        },
        dynamic={
            "DynamicQuantizeLinear": 2,
            "DynamicQuantizeMatMul": 8,
            "FusedMatMul": 6,
            "Gelu": 3,
            "LayerNormalization": 5,
            "MatMul": 2,
            "MatMulIntegerToFloat": 6,
            "Softmax": 2,
        },
        static={
            "BiasGelu": 2,
            "FusedMatMul": 6,
            "Gelu": 1,
            "LayerNormalization": 5,
            "MatMul": 2,
            "MatMulIntegerToFloat": 14,
            "QuantizeLinear": 10,
            "Softmax": 2,
        },
        openvino={"FullyConnected": 14, "MVN": 5},
        changes={
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "max_relative_positions": -1,
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "distilbert": Family(
        float32={"Attention": 2, "BiasGelu": 2, "FusedGemm": 1, "Gemm": 1, "LayerNormalization": 5, "MatMul": 6},
        dynamic={
            "DynamicQuantizeLinear": 2,
            "DynamicQuantizeMatMul": 8,
            "Gelu": 2,
            "LayerNormalization": 5,
            "QAttention": 2,
        },
        static={
            "BiasGelu": 2,
            "LayerNormalization": 5,
            "MatMulIntegerToFloat": 7,
            "QAttention": 2,
            "QLinearMatMul": 1,
            "QuantizeLinear": 9,
        },
        openvino={"FullyConnected": 14, "MVN": 5},
        changes={"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2},
    ),
    "electra": Family(
        float32={"Attention": 2, "BiasGelu": 2, "Gelu": 1, "Gemm": 2, "LayerNormalization": 5, "MatMul": 6},
        dynamic={
            "DynamicQuantizeLinear": 2,
            "DynamicQuantizeMatMul": 8,
            "Gelu": 3,
            "LayerNormalization": 5,
            "QAttention": 2,
        },
        static={
            "BiasGelu": 2,
            "Gelu": 1,
            "LayerNormalization": 5,
            "MatMulIntegerToFloat": 8,
            "QAttention": 2,
            "QuantizeLinear": 10,
        },
        openvino={"FullyConnected": 14, "MVN": 5},
        changes={"embedding_size": 32},
    ),
    "modernbert": Family(
        float32={"FusedMatMul": 4, "Gelu": 5, "Gemm": 2, "LayerNormalization": 10, "MatMul": 20, "Softmax": 4},
        dynamic={
            "DynamicQuantizeMatMul": 18,
            "FusedMatMul": 4,
            "Gelu": 5,
            "LayerNormalization": 10,
            "MatMul": 4,
            "Softmax": 4,
        },
        static={
            "FusedMatMul": 4,
            "Gelu": 5,
            "LayerNormalization": 10,
            "MatMul": 4,
            "MatMulIntegerToFloat": 18,
            "QuantizeLinear": 18,
            "Softmax": 4,
        },
        openvino={"FullyConnected": 18, "MVN": 10, "RoPE": 8},
        changes={"local_attention": 8, "global_attn_every_n_layers": 2, "num_hidden_layers": 4},
    ),
    "mpnet": Family(
        float32={
            "BiasGelu": 2,
            "FusedGemm": 1,
            "FusedMatMul": 2,
            "Gemm": 1,
            "LayerNormalization": 5,
            "MatMul": 14,
            "Softmax": 2,
        },
        dynamic={
            "DynamicQuantizeLinear": 2,
            "DynamicQuantizeMatMul": 8,
            "FusedMatMul": 2,
            "Gelu": 2,
            "LayerNormalization": 5,
            "MatMul": 2,
            "MatMulIntegerToFloat": 6,
            "Softmax": 2,
        },
        static={
            "BiasGelu": 2,
            "FusedMatMul": 2,
            "LayerNormalization": 5,
            "MatMul": 2,
            "MatMulIntegerToFloat": 14,
            "QuantizeLinear": 10,
            "Softmax": 2,
        },
        openvino={"FullyConnected": 14, "MVN": 5},
    ),
    "roberta": Family(
        float32={"Attention": 2, "BiasGelu": 2, "FusedGemm": 1, "Gemm": 1, "LayerNormalization": 5, "MatMul": 6},
        dynamic={
            "DynamicQuantizeLinear": 2,
            "DynamicQuantizeMatMul": 8,
            "Gelu": 2,
            "LayerNormalization": 5,
            "QAttention": 2,
        },
        static={
            "BiasGelu": 2,
            "LayerNormalization": 5,
            "MatMulIntegerToFloat": 8,
            "QAttention": 2,
            "QuantizeLinear": 10,
        },
        openvino={"FullyConnected": 14, "MVN": 5},
    ),
    "xlm-roberta": Family(
        float32={"Attention": 2, "BiasGelu": 2, "FusedGemm": 1, "Gemm": 1, "LayerNormalization": 5, "MatMul": 6},
        dynamic={
            "DynamicQuantizeLinear": 2,
            "DynamicQuantizeMatMul": 8,
            "Gelu": 2,
            "LayerNormalization": 5,
            "QAttention": 2,
        },
        static={
            "BiasGelu": 2,
            "LayerNormalization": 5,
            "MatMulIntegerToFloat": 8,
            "QAttention": 2,
            "QuantizeLinear": 10,
        },
        openvino={"FullyConnected": 14, "MVN": 5},
    ),
}


def loaded_operators(model: Path, folder: Path) -> dict[str, int]:
    """What ONNX Runtime runs: the graph as it is after its own optimizations."""
    options = session_options(1)
    options.optimized_model_filepath = str(folder / "loaded.onnx")
    open_graph(model, options)
    counts = operators(onnx.load(folder / "loaded.onnx").graph)
    return {name: counts[name] for name in COUNTED if counts[name]}


def compiled_operators(model: Path) -> tuple[dict[str, int], set[str]]:
    """What OpenVINO runs, and the precisions of its products with weights."""
    running = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    told = [node.get_rt_info() for node in running.get_runtime_model().get_ops()]
    kinds = [info["layerType"].astype(str) for info in told]
    counts = Counter(kinds)
    precisions = {
        info["runtimePrecision"].astype(str).lower()
        for kind, info in zip(kinds, told, strict=True)
        if kind == "FullyConnected"
    }
    return {name: counts[name] for name in OPENVINO_COUNTED if counts[name]}, precisions


def quantized(model: Path, rows: Path, folder: Path, scheme: Scheme, runtime: Runtime) -> Path:
    folder.mkdir()
    variant = Variant(precision=Precision.INT8, scheme=scheme)
    make_variant(model, rows, folder, variant, registry.get(TASK), runtime, SilentProgress())
    return folder / "model.onnx"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in FAMILIES]
)
def test_what_is_fused_stays_fused_and_equal(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    make_checkpoint(tmp_path / "checkpoint", name, **family.changes)
    run_export(tmp_path / "checkpoint", tmp_path / "exported")
    facts = run_optimize(tmp_path / "exported", tmp_path / "optimized")
    assert facts["optimize_parity"]["relative_deviation"] < 1e-5
    assert loaded_operators(tmp_path / "optimized" / "model.onnx", tmp_path) == family.float32
    rows = make_rows(tmp_path / "rows", 16)
    for scheme, expected in ((Scheme.DYNAMIC, family.dynamic), (Scheme.STATIC, family.static)):
        model = quantized(tmp_path / "optimized", rows, tmp_path / scheme.value, scheme, Runtime.ONNXRUNTIME)
        assert loaded_operators(model, tmp_path) == expected
    assert compiled_operators(tmp_path / "exported" / "model.onnx") == (family.openvino, {"f32"})
    model = quantized(tmp_path / "exported", rows, tmp_path / "openvino", Scheme.STATIC, Runtime.OPENVINO)
    found, precisions = compiled_operators(model)
    assert found == family.openvino
    assert precisions <= {"i8", "u8"}
