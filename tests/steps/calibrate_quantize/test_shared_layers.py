"""ALBERT: all layers are one set of weights, from the checkpoint to int8."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graph_operators import all_nodes
from lane_steps import TASK, make_rows, run_export, run_optimize
from modelmill.core.progress import SilentProgress
from modelmill.steps.calibrate_quantize.contract import Scheme, Variant
from modelmill.steps.calibrate_quantize.variants import make_variant
from modelmill.targets.base import Precision, Runtime
from modelmill.tasks import registry
from small_models import make_checkpoint

SIZES = {
    "embedding_size": 64,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
}
MATRICES = {"MatMul": 1, "Gemm": 1, "Attention": 1, "QAttention": 1, "MatMulInteger": 1, "DequantizeLinear": 0}


def weights_of(path: Path) -> dict[str, set[str]]:
    """Operator → the matrices that operators of its kind read."""
    graph = onnx.load(path).graph
    constants = {item.name for item in graph.initializer if len(item.dims) == 2}
    found: dict[str, set[str]] = {}
    for node in all_nodes(graph):
        at = MATRICES.get(node.op_type)
        if at is not None and node.input[at] in constants:
            found.setdefault(node.op_type, set()).add(node.input[at])
    return found


@pytest.fixture(scope="module")
def albert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("albert")
    make_checkpoint(here / "checkpoint", "albert", labels=["alpha", "beta", "gamma"], **SIZES)
    run_export(here / "checkpoint", here / "exported")
    run_optimize(here / "exported", here / "optimized")
    return here


def size_of(path: Path) -> float:
    return path.stat().st_size


def test_fused_layers_share_one_matrix_of_attention_and_one_of_each_product(albert: Path) -> None:
    fused = weights_of(albert / "optimized" / "model.onnx")
    assert len(fused["Attention"]) == 1
    # A layer's three, and of the whole model: embeddings to the hidden size, pooler, classifier.
    assert sum(len(fused.get(name, ())) for name in ("MatMul", "Gemm")) == 6
    assert size_of(albert / "optimized" / "model.onnx") < 1.05 * size_of(albert / "checkpoint" / "model.safetensors")


@pytest.mark.parametrize("scheme", [Scheme.DYNAMIC, Scheme.STATIC])
def test_int8_layers_share_them_too_and_the_file_is_a_quarter_of_the_checkpoint(
    albert: Path, scheme: Scheme, tmp_path: Path
) -> None:
    rows = make_rows(tmp_path / "rows", 8)
    (tmp_path / "int8").mkdir()
    variant = Variant(precision=Precision.INT8, scheme=scheme, smooth=0.5)
    task = registry.get(TASK)
    make_variant(albert / "optimized", rows, tmp_path / "int8", variant, task, Runtime.ONNXRUNTIME, SilentProgress())
    found = weights_of(tmp_path / "int8" / "model.onnx")
    assert len(found["QAttention"]) == 1
    assert len(found["MatMulInteger" if scheme is Scheme.DYNAMIC else "DequantizeLinear"]) == 6
    assert size_of(tmp_path / "int8" / "model.onnx") < 0.3 * size_of(albert / "checkpoint" / "model.safetensors")
