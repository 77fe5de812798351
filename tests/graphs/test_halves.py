"""fp16 and bf16, and the islands that stay float32.

ONNX Runtime's CPU provider computes fp16 graphs in float32 and refuses bf16 ones, so that numbers are told by a
simulation that casts each value to the type and back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from modelmill.core.errors import ModelError
from modelmill.graphs import files
from modelmill.graphs.halves import BF16, FP16, does_not_fit, float_values, halve, simulate
from modelmill.graphs.types import element_types

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
OVERFLOWING = f"""{HEAD}
planted (float[b, 4] x, int64[b, 4] mask) => (float[b, 4] y)
<float[4, 4] weight = {{300., 0., 0., 0., 0., 300., 0., 0., 0., 0., 300., 0., 0., 0., 0., 300.}},
 float[4, 4] back = {{0.003, 0., 0., 0., 0., 0.003, 0., 0., 0., 0., 0.003, 0., 0., 0., 0., 0.003}},
 float low = {{-3.4e38}}, float none = {{0.}}, float[4] bias = {{0.1, 0.2, 0.3, 0.4}}>
{{ wide = MatMul (x, weight)  narrow = MatMul (wide, back)  biased = Add (narrow, bias)
   kept = Cast <to = 9> (mask)  hidden = Where (kept, none, low)  scores = Add (biased, hidden)
   shares = Softmax <axis = -1> (scores)  y = Mul (shares, biased) }}"""


def parsed(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def answer(model: ir.Model, folder: Path, x: np.ndarray) -> np.ndarray:
    files.save(model, folder, "graph")
    session = ort.InferenceSession(str(folder / "graph.onnx"), providers=["CPUExecutionProvider"])
    feeds = {"x": x, "mask": np.tile(np.array([1, 1, 1, 0]), (len(x), 1))}
    found: np.ndarray = session.run(None, feeds)[0]
    return found


X = np.linspace(-1000, 1000, 32, dtype=np.float32).reshape(8, 4)


def test_what_overflows_fp16_is_not_finite_without_islands_and_agrees_with_them(tmp_path: Path) -> None:
    expected = answer(parsed(OVERFLOWING), tmp_path, X)
    bare, kept = parsed(OVERFLOWING), parsed(OVERFLOWING)
    halve(bare, FP16, islands=False)
    halve(kept, FP16, {"wide"})
    simulate(bare)
    simulate(kept)
    assert not np.isfinite(answer(bare, tmp_path, X)).all()
    found = answer(kept, tmp_path, X)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_bf16_has_float32s_reach_and_fewer_bits(tmp_path: Path) -> None:
    expected = answer(parsed(OVERFLOWING), tmp_path, X)
    model = parsed(OVERFLOWING)
    halve(model, BF16)
    simulate(model)
    apart = np.abs(answer(model, tmp_path, X) - expected).max() / np.abs(expected).max()
    assert 1e-4 < apart < 2e-2


def test_islands_are_what_sums_what_was_seen_beyond_and_what_constants_make_beyond() -> None:
    model = parsed(OVERFLOWING)
    done = halve(model, FP16, {"wide"})
    # Both products touch "wide"; Where, and the Add that reads it, carry the mask's lowest number; Softmax sums.
    assert done.islands == {"Add": 1, "MatMul": 2, "Softmax": 1, "Where": 1}
    assert done.halved == {"Add": 1, "Mul": 1}
    assert {value.name for value in model.graph.initializers.values() if value.dtype is FP16} == {"bias.float16"}
    assert "low" in model.graph.initializers


def test_inputs_and_outputs_keep_their_types_and_the_graph_is_valid(tmp_path: Path) -> None:
    for dtype in (FP16, BF16):
        model = parsed(OVERFLOWING)
        halve(model, dtype)
        files.save(model, tmp_path, "graph")
        proto = onnx.load(tmp_path / "graph.onnx")
        onnx.checker.check_model(proto, full_check=True)
        kinds = [item.type.tensor_type.elem_type for item in (*proto.graph.input, *proto.graph.output)]
        assert kinds == [onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.FLOAT]
        assert [item.name for item in proto.graph.output] == ["y"]


def test_the_cpu_provider_does_not_overflow_where_a_gpu_does(tmp_path: Path) -> None:
    """Why numbers are simulated: the day that this fails, the CPU provider computes fp16 itself."""
    bare = parsed(OVERFLOWING)
    halve(bare, FP16, islands=False)
    hidden = answer(bare, tmp_path, X)[:, :3]
    simulate(bare)
    assert not np.isfinite(answer(bare, tmp_path, X)[:, :3]).all()
    assert np.isfinite(hidden).all()


def test_types_are_known_again_after_saving(tmp_path: Path) -> None:
    files.save(parsed(OVERFLOWING), tmp_path, "graph")
    model = files.load(tmp_path / "graph.onnx")
    assert [value.name for value in float_values(model)] == [
        "wide", "narrow", "biased", "hidden", "scores", "shares", "y",
    ]  # fmt: skip
    types = element_types(model)
    kept = next(node for node in model.graph if node.op_type == "Cast").outputs[0]
    assert types[id(kept)] is ir.DataType.BOOL


def test_operators_with_graphs_of_their_own_stay_float32_with_what_they_read(tmp_path: Path) -> None:
    text = f"""{HEAD}
    branching (float[b, 4] x, int64[b, 4] mask) => (float[b, 4] y)
    <float[4] bias = {{0.1, 0.2, 0.3, 0.4}}, int64 zero = {{0}}, int64[2] axes = {{0, 1}}>
    {{ shifted = Add (x, bias)  sum = ReduceSum <keepdims = 0> (mask, axes)  some = Greater (sum, zero)
       chosen = If (some) <then_branch = then () => (float[b, 4] first) {{ first = Add (shifted, bias) }},
                           else_branch = other () => (float[b, 4] second) {{ second = Mul (shifted, bias) }}>
       y = Mul (chosen, bias) }}"""
    expected = answer(parsed(text), tmp_path, X)
    model = parsed(text)
    halve(model, BF16)
    simulate(model)
    found = answer(model, tmp_path, X)
    assert np.abs(found - expected).max() < 2e-2 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("smallest", "largest", "fits"),
    [(-1.0, 1.0, True), (-20000.0, 1.0, False), (0.0, 16376.0, True), (0.0, float("nan"), False),
     (float("-inf"), 0.0, False), (-1e-6, 1e-6, False), (0.0, 0.0, True)],
)  # fmt: skip
def test_what_fits_leaves_a_margin_on_both_ends(smallest: float, largest: float, fits: bool) -> None:
    assert does_not_fit(smallest, largest, FP16) is not fits


def test_an_old_opset_has_no_quantizer_of_fp16() -> None:
    model = parsed(
        '<ir_version: 8, opset_import: ["" : 17]> old (float[b] x) => (float[b] y) '
        "<float scale = {0.1}, int8 zero = {0}> "
        "{ q = QuantizeLinear (x, scale, zero) y = DequantizeLinear (q, scale, zero) }"
    )
    with pytest.raises(ModelError, match="needs opset 19"):
        halve(model, FP16)
