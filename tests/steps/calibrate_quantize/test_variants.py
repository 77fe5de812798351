from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import openvino
import pytest
from onnx import numpy_helper

from lane_steps import TASK
from modelmill.core import hardware
from modelmill.core.contract import JSON
from modelmill.core.errors import ModelError
from modelmill.core.model import read_model
from modelmill.core.progress import SilentProgress
from modelmill.graphs import files
from modelmill.graphs.gelu import approximate_gelu
from modelmill.graphs.padding import load_joined
from modelmill.steps.calibrate_quantize.contract import Calibration, Gelu, Scheme, Variant
from modelmill.steps.calibrate_quantize.operands import names_of
from modelmill.steps.calibrate_quantize.run import saturates
from modelmill.steps.calibrate_quantize.smoothing import smooth, smoothable
from modelmill.steps.calibrate_quantize.variants import make_variant
from modelmill.targets.base import Precision, Runtime
from modelmill.targets.pytorch import load_processor
from modelmill.targets.registry import open_session_of
from modelmill.tasks import registry
from modelmill.tasks.samples import random_batch

LaneOf = Callable[[str], Any]
ARCHITECTURES = ("bert", "roberta", "distilbert", "electra")
TARGETS = (Runtime.ONNXRUNTIME, Runtime.OPENVINO)


def made(lane: Any, output: Path, runtime: Runtime = Runtime.ONNXRUNTIME, **fields: Any) -> dict[str, JSON]:
    """Make a variant for a runtime; static int8 unless ``fields`` say otherwise."""
    variant = Variant(**{"precision": Precision.INT8, "scheme": Scheme.STATIC, **fields})
    source = lane.optimized if runtime is Runtime.ONNXRUNTIME else lane.exported
    output.mkdir()
    return make_variant(source, lane.rows, output, variant, registry.get(TASK), runtime, SilentProgress())


def logits(directory: Path, runtime: Runtime = Runtime.ONNXRUNTIME) -> np.ndarray:
    task, processor = registry.get(TASK), load_processor(directory)
    session = open_session_of(runtime)(directory, 1)
    shapes = ((1, 7, False), (5, 9, True))
    return np.concatenate(
        [session.run(random_batch(task, processor, *shape[:2], padded=shape[2]))["logits"] for shape in shapes]
    )


def deviation(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def nodes_of(directory: Path) -> list[onnx.NodeProto]:
    return list(onnx.load(directory / "model.onnx").graph.node)


@pytest.mark.parametrize("runtime", TARGETS)
@pytest.mark.parametrize("calibration", list(Calibration))
def test_every_calibration_keeps_the_logits_within_an_eighth(
    lane_of: LaneOf, tmp_path: Path, calibration: Calibration, runtime: Runtime
) -> None:
    lane = lane_of("bert")
    made(lane, tmp_path / "model", runtime, calibration=calibration)
    assert 0 < deviation(logits(tmp_path / "model", runtime), logits(lane.exported)) < 0.125


@pytest.mark.parametrize("runtime", TARGETS)
def test_symmetric_ranges_have_zero_in_their_middle(lane_of: LaneOf, tmp_path: Path, runtime: Runtime) -> None:
    lane = lane_of("bert")
    for name, symmetric in (("around-zero", True), ("as-seen", False)):
        made(lane, tmp_path / name, runtime, symmetric=symmetric)
        graph = onnx.load(tmp_path / name / "model.onnx").graph
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        # A softmax's shares lie between 0 and 1 either way.
        shares = {node.output[0] for node in graph.node if node.op_type == "Softmax"}
        quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in shares]
        points = [arrays[node.input[2]] for node in quantizers]
        middles = [int(point) == (0 if point.dtype == np.int8 else 128) for point in points]
        assert all(middles) is symmetric
        assert deviation(logits(tmp_path / name, runtime), logits(lane.exported)) < 0.125


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_openvino_is_given_attentions_products_too_and_computes_all_of_them_in_int8(
    lane_of: LaneOf, tmp_path: Path, architecture: str
) -> None:
    lane = lane_of(architecture)
    facts = made(lane, tmp_path / "model", Runtime.OPENVINO, reduce_range=saturates(hardware.cpu().instruction_set))
    # Two layers: query, key, value, output, up and down; scores and contexts.
    assert facts["quantized"] == {"model": {"Gather": 1, "Gemm": 2, "MatMul": 12, "Pair": 4}}
    assert {node.domain for node in nodes_of(tmp_path / "model")} == {""}
    core = openvino.Core()
    running = core.compile_model(tmp_path / "model" / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    told = [node.get_rt_info() for node in running.get_runtime_model().get_ops()]
    computed = [
        info["runtimePrecision"].astype(str) for info in told if info["layerType"].astype(str) == "FullyConnected"
    ]
    assert len(computed) == 14
    assert {precision.lower() for precision in computed} <= {"i8", "u8"}
    assert deviation(logits(tmp_path / "model", Runtime.OPENVINO), logits(lane.exported)) < 0.125


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_smoothing_leaves_what_a_graph_computes_and_its_operators(
    lane_of: LaneOf, tmp_path: Path, architecture: str
) -> None:
    lane = lane_of(architecture)
    for name, source in (("fused", lane.optimized), ("unfused", lane.exported)):
        model = load_joined(source / "model.onnx")
        before = [node.op_type for node in model.graph]
        draw = np.random.default_rng(0)
        largest = {
            item.x.name or "": draw.uniform(0.1, 9, item.products[0].weight.shape[0]).astype(np.float32)
            for item in smoothable(model)
        }
        # Normalisations of these architectures are residuals, too: the contexts of two attentions are what is left.
        assert smooth(model, largest, 0.5) == 2
        assert [node.op_type for node in model.graph] == before
        target = tmp_path / name
        target.mkdir()
        for path in source.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        files.save(model, target, "model")
        assert (target / "model.onnx").read_bytes() != (source / "model.onnx").read_bytes()
        assert deviation(logits(target), logits(source)) < 1e-5


def test_a_normalisation_that_only_products_read_is_smoothed() -> None:
    """As in models that normalise first."""
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[n, 3] x) => (float[n, 2] y, float[n, 2] z)
    <float[3] scale = {1.0, 2.0, 3.0}, float[3] bias = {0.5, 0.25, -1.0},
     float[3, 2] a = {1.0, -2.0, 3.0, 4.0, -5.0, 6.0}, float[3, 2] b = {0.5, 0.1, 0.2, 0.3, 0.4, 0.5}> {
        normal = LayerNormalization (x, scale, bias)
        y = MatMul (normal, a)
        z = MatMul (normal, b)
    }"""
    model = ir.serde.from_onnx_text(text)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    wanted = onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    assert smooth(model, {"normal": np.asarray([9.0, 1.0, 0.1], np.float32)}, 0.5) == 2
    assert sorted(node.op_type for node in model.graph) == ["LayerNormalization", "MatMul", "MatMul"]
    found = onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    for one, other in zip(wanted, found, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)
    # Eq. 4 with a half: the square root of the activation's largest over the weights' largest.
    scales = np.sqrt([9.0 / 2.0, 1.0 / 4.0, 0.10009765625 / 6.0])
    changed = next(node for node in model.graph if node.op_type == "LayerNormalization").inputs[1]
    assert changed is not None
    assert changed.const_value is not None
    assert changed.const_value.numpy() == pytest.approx(np.asarray([1.0, 2.0, 3.0]) / scales, rel=1e-5)


def test_what_was_smoothed_and_what_could_not_be_is_counted(lane_of: LaneOf, tmp_path: Path) -> None:
    lane = lane_of("bert")
    facts = made(lane, tmp_path / "folded", smooth=0.8)
    assert facts["smoothed"] == {"model": {"smoothed": 2, "not_smoothed": 8}}
    products = [node.op_type for node in nodes_of(tmp_path / "folded")]
    assert products.count("Mul") == [node.op_type for node in nodes_of(lane.optimized)].count("Mul") + 1, "the table"


def test_openvino_multiplies_where_nothing_takes_the_scales_in_and_still_computes_the_same(
    lane_of: LaneOf, tmp_path: Path
) -> None:
    lane = lane_of("bert")
    facts = made(lane, tmp_path / "model", Runtime.OPENVINO, smooth=0.8)
    assert facts["smoothed"] == {"model": {"smoothed": 14, "not_smoothed": 0}}
    assert deviation(logits(tmp_path / "model", Runtime.OPENVINO), logits(lane.exported)) < 0.125
    model = files.load(lane.exported / "model.onnx")
    draw = np.random.default_rng(0)
    largest = {
        item.x.name or "": draw.uniform(0.1, 9, item.products[0].weight.shape[0]).astype(np.float32)
        for item in smoothable(model, multiply=True, kept={"13"})
    }
    assert smooth(model, largest, 0.8, multiply=True, kept={"13"}) == 13
    target = tmp_path / "float"
    target.mkdir()
    for path in lane.exported.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    files.save(model, target, "model")
    assert deviation(logits(target), logits(lane.exported)) < 1e-5


# DistilBERT is exported in opset 18, where GELU is written out; ELECTRA's head has one of its own.
@pytest.mark.parametrize(("architecture", "count"), [("bert", 2), ("roberta", 2), ("distilbert", 0), ("electra", 3)])
def test_gelu_becomes_its_approximation_and_logits_stay_near(
    lane_of: LaneOf, tmp_path: Path, architecture: str, count: int
) -> None:
    lane = lane_of(architecture)
    asked = {"precision": Precision.FLOAT32, "scheme": Scheme.NONE, "gelu": Gelu.TANH}
    facts = made(lane, tmp_path / "model", **asked)
    assert facts["approximate_gelu"] == {"model": count}
    apart = deviation(logits(tmp_path / "model"), logits(lane.optimized))
    assert (0 < apart < 1e-2) if count else apart == 0


@pytest.mark.parametrize("form", ["x * (1 + e) * 0.5", "0.5 * x * (1 + e)", "x * (0.5 * (1 + e))"])
def test_a_gelu_that_is_written_out_is_found_in_every_order_of_its_factors(form: str, tmp_path: Path) -> None:
    orders = {
        "x * (1 + e) * 0.5": "t = Mul (x, sum)\n y = Mul (t, half)",
        "0.5 * x * (1 + e)": "t = Mul (half, x)\n y = Mul (t, sum)",
        "x * (0.5 * (1 + e))": "t = Mul (half, sum)\n y = Mul (x, t)",
    }
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[n] x) => (float[n] y) <float root = {{1.4142135}}, float one = {{1.0}}, float half = {{0.5}}> {{
        scaled = Div (x, root)
        e = Erf (scaled)
        sum = Add (e, one)
        {orders[form]}
    }}"""
    model = ir.serde.from_onnx_text(text)
    assert approximate_gelu(model) == 1
    files.save(model, tmp_path, "model")
    assert [node.op_type for node in nodes_of(tmp_path)] == ["Gelu"]


def test_half_of_another_sum_is_no_gelu() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[n] x) => (float[n] y) <float root = {1.4142135}, float one = {2.0}, float half = {0.5}> {
        scaled = Div (x, root)
        e = Erf (scaled)
        sum = Add (e, one)
        t = Mul (x, sum)
        y = Mul (t, half)
    }"""
    assert approximate_gelu(ir.serde.from_onnx_text(text)) == 0


@pytest.mark.parametrize("scheme", [Scheme.DYNAMIC, Scheme.STATIC])
def test_products_that_are_kept_stay_float32(lane_of: LaneOf, tmp_path: Path, scheme: Scheme) -> None:
    lane = lane_of("bert")
    names = names_of(load_joined(lane.optimized / "model.onnx"), pairs=False)
    assert names == [str(number) for number in range(10)]
    facts = made(lane, tmp_path / "some", scheme=scheme, keep_float=["model/0", "model/9"], embeddings=False)
    assert facts["quantized"] == {"model": {"Attention": 1, "Gemm": 1, "MatMul": 6}}
    everything = [f"model/{name}" for name in names]
    facts = made(lane, tmp_path / "all", scheme=scheme, keep_float=everything, embeddings=False)
    assert facts["quantized"] == {"model": {}}
    assert np.array_equal(logits(tmp_path / "all"), logits(lane.optimized))


@pytest.mark.parametrize("scheme", [Scheme.DYNAMIC, Scheme.STATIC])
def test_no_weight_stays_that_nothing_reads(lane_of: LaneOf, tmp_path: Path, scheme: Scheme) -> None:
    made(lane_of("bert"), tmp_path / "model", scheme=scheme)
    graph = onnx.load(tmp_path / "model" / "model.onnx").graph
    branches = [item.g for node in graph.node for item in node.attribute if item.type == onnx.AttributeProto.GRAPH]
    assert len(branches) == 4
    read = {name for inner in (graph, *branches) for node in inner.node for name in node.input}
    assert {item.name for item in graph.initializer} <= read
    matrices = [item for item in graph.initializer if len(item.dims) == 2 and item.data_type == onnx.TensorProto.FLOAT]
    assert all(max(item.dims) * min(item.dims) < 4096 for item in matrices), [item.name for item in matrices]


def test_a_product_of_two_activations_is_kept_by_its_name(lane_of: LaneOf, tmp_path: Path) -> None:
    lane = lane_of("bert")
    assert names_of(files.load(lane.exported / "model.onnx"), pairs=True)[-4:] == ["pair0", "pair1", "pair2", "pair3"]
    facts = made(lane, tmp_path / "model", Runtime.OPENVINO, keep_float=["model/pair0", "model/pair3"])
    assert facts["quantized"] == {"model": {"Gather": 1, "Gemm": 2, "MatMul": 12, "Pair": 2}}


def test_a_product_that_the_model_does_not_have_is_named(lane_of: LaneOf, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model/99"):
        made(lane_of("bert"), tmp_path / "model", keep_float=["model/99"])


def test_bf16_is_the_float32_graph_that_says_so(lane_of: LaneOf, tmp_path: Path) -> None:
    lane = lane_of("bert")
    asked = {"precision": Precision.BF16, "scheme": Scheme.NONE, "rest": Precision.BF16}
    assert made(lane, tmp_path / "model", Runtime.OPENVINO, **asked) == {}
    document = read_model(tmp_path / "model")
    assert (document.precision, document.rest) == ("bf16", "bf16")
    assert (tmp_path / "model" / "model.onnx").read_bytes() == (lane.exported / "model.onnx").read_bytes()


def test_int8_whose_rest_is_bf16_is_the_int8_graph_that_says_so(lane_of: LaneOf, tmp_path: Path) -> None:
    lane = lane_of("bert")
    made(lane, tmp_path / "float32", Runtime.OPENVINO)
    made(lane, tmp_path / "bf16", Runtime.OPENVINO, rest=Precision.BF16)
    documents = [read_model(tmp_path / name) for name in ("float32", "bf16")]
    assert [(document.precision, document.rest) for document in documents] == [("int8", "float32"), ("int8", "bf16")]
    graphs = [(tmp_path / name / "model.onnx").read_bytes() for name in ("float32", "bf16")]
    assert graphs[0] == graphs[1]
