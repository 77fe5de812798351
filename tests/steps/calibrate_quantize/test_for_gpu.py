"""Variants for GPUs. Their graphs are checked by structure, and by numbers in a simulation on the CPU provider."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from lane_steps import TASK, run_optimize
from modelmill.core.contract import JSON
from modelmill.core.model import read_model
from modelmill.core.progress import SilentProgress
from modelmill.graphs import files
from modelmill.steps.calibrate_quantize.contract import Calibration, Scheme, Variant
from modelmill.steps.calibrate_quantize.for_gpu import write_simulation
from modelmill.steps.calibrate_quantize.tensorrt import quantize_for_tensorrt, scale_of
from modelmill.steps.calibrate_quantize.variants import make_variant
from modelmill.targets.base import Precision, Runtime
from modelmill.targets.onnxruntime_cpu import open_session
from modelmill.targets.pytorch import load_processor
from modelmill.tasks import registry
from modelmill.tasks.samples import random_batch

LaneOf = Callable[[str], Any]
ARCHITECTURES = ("bert", "roberta", "electra")
TENSORRT, CUDA = Runtime.ONNXRUNTIME_TENSORRT, Runtime.ONNXRUNTIME_CUDA
INT8 = {"precision": Precision.INT8, "scheme": Scheme.STATIC, "symmetric": True, "embeddings": False}
HALVES = {
    precision: {"precision": precision, "scheme": Scheme.NONE, "rest": precision}
    for precision in (Precision.FP16, Precision.BF16)
}


def made(lane: Any, output: Path, runtime: Runtime = TENSORRT, **fields: Any) -> dict[str, JSON]:
    output.mkdir()
    progress = SilentProgress()
    return make_variant(lane.exported, lane.rows, output, Variant(**fields), registry.get(TASK), runtime, progress)


def logits(directory: Path) -> np.ndarray:
    task, processor = registry.get(TASK), load_processor(directory)
    session = open_session(directory, 1)
    shapes = ((1, 7, False), (5, 9, True))
    return np.concatenate(
        [session.run(random_batch(task, processor, *shape[:2], padded=shape[2]))["logits"] for shape in shapes]
    )


def simulated(directory: Path) -> np.ndarray:
    folder = directory.with_name(f"{directory.name}-simulated")
    folder.mkdir()
    write_simulation(directory, folder)
    return logits(folder)


def deviation(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


class Graph:
    """A saved graph, asked by names."""

    def __init__(self, directory: Path) -> None:
        proto = onnx.load(directory / "model.onnx")
        onnx.checker.check_model(proto)
        self.nodes = list(proto.graph.node)
        self.constants = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.counts = Counter(node.op_type for node in self.nodes)
        self.domains = {node.domain for node in self.nodes}

    def made_by(self, name: str) -> str:
        return self.makers[name].op_type if name in self.makers else "constant"

    def of(self, op_type: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type == op_type]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tensorrts_int8_has_quantizers_at_every_product_around_zero(
    lane_of: LaneOf, tmp_path: Path, architecture: str
) -> None:
    facts = made(lane_of(architecture), tmp_path / "model", **INT8)
    graph = Graph(tmp_path / "model")
    quantized = dict(facts["quantized"]["model"])  # type: ignore[index, call-overload, arg-type]
    assert quantized == {"Gemm": quantized["Gemm"], "MatMul": 12, "Pair": 4}
    for node in [*graph.of("MatMul"), *graph.of("Gemm")]:
        # Right before the product, on both operands.
        assert [graph.made_by(name) for name in node.input[:2]] == ["DequantizeLinear"] * 2
    for node in [*graph.of("QuantizeLinear"), *graph.of("DequantizeLinear")]:
        zero = graph.constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        assert node.input[1] in graph.constants
    for node in graph.of("QuantizeLinear"):
        assert graph.constants[node.input[1]].shape == ()
    weights = [node for node in graph.of("DequantizeLinear") if node.input[0] in graph.constants]
    for node in weights:
        matrix, axis = graph.constants[node.input[0]], node.attribute[0].i
        assert matrix.dtype == np.int8
        assert np.abs(matrix.astype(int)).max() <= 127
        assert graph.constants[node.input[1]].shape == (matrix.shape[axis],)


def test_tensorrt_is_given_none_of_what_it_refuses(lane_of: LaneOf, tmp_path: Path) -> None:
    lane = lane_of("bert")
    made(lane, tmp_path / "model", **INT8, residuals=True, rest=Precision.FP16)
    graph = Graph(tmp_path / "model")
    refused = {"QLinearMatMul", "MatMulInteger", "DynamicQuantizeLinear", "ConvInteger"}
    assert not refused & set(graph.counts)
    assert graph.domains == {""}
    assert not any(array.dtype == np.uint8 for array in graph.constants.values())
    tables = [graph.constants[node.input[0]] for node in graph.of("Gather") if node.input[0] in graph.constants]
    assert {table.dtype for table in tables if table.ndim == 2} == {np.dtype(np.float16)}


def test_a_residual_is_int8_on_the_side_that_is_not_the_product(lane_of: LaneOf, tmp_path: Path) -> None:
    lane = lane_of("bert")
    plain, residual = made(lane, tmp_path / "plain", **INT8), made(lane, tmp_path / "residual", **INT8, residuals=True)
    assert "Residual" not in plain["quantized"]["model"]  # type: ignore[index, call-overload, operator]
    # Two in each of two layers: after attention's output, after the feed-forward's.
    assert residual["quantized"]["model"]["Residual"] == 4  # type: ignore[index, call-overload]
    graph = Graph(tmp_path / "residual")
    sums = [
        node
        for node in graph.of("Add")
        if any(graph.made_by(name) == "Add" for name in node.input)
        and any(graph.made_by(name) == "DequantizeLinear" for name in node.input)
    ]
    assert len(sums) == 4
    # What the next layer's products read is what the sum reads: one quantizer, not two.
    assert graph.counts["QuantizeLinear"] == Graph(tmp_path / "plain").counts["QuantizeLinear"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        (INT8, 0.15),
        ({**INT8, "rest": Precision.FP16}, 0.15),
        ({**INT8, "residuals": True, "rest": Precision.FP16}, 0.25),
        (HALVES[Precision.FP16], 5e-3),
        (HALVES[Precision.BF16], 5e-2),
    ],
    ids=["int8", "int8, fp16", "int8, residuals, fp16", "fp16", "bf16"],
)
def test_logits_stay_by_float32s(
    lane_of: LaneOf, tmp_path: Path, architecture: str, fields: dict[str, Any], bound: float
) -> None:
    lane = lane_of(architecture)
    made(lane, tmp_path / "model", **fields)
    apart = deviation(simulated(tmp_path / "model"), logits(lane.exported))
    assert 0 < apart < bound


def test_int8_is_the_same_numbers_in_the_simulation_and_as_it_is(lane_of: LaneOf, tmp_path: Path) -> None:
    made(lane_of("bert"), tmp_path / "model", **INT8)
    assert np.array_equal(simulated(tmp_path / "model"), logits(tmp_path / "model"))


def test_halves_keep_softmax_normalisation_and_the_masks_lowest_number_in_float32(
    lane_of: LaneOf, tmp_path: Path
) -> None:
    facts = made(lane_of("bert"), tmp_path / "model", CUDA, **HALVES[Precision.FP16])
    told: Any = facts["fp16"]
    assert told["model"]["float32_islands"] == {"Add": 2, "LayerNormalization": 5, "Softmax": 2, "Where": 1}
    document, lane = read_model(tmp_path / "model"), lane_of("bert")
    assert (document.precision, document.rest) == ("fp16", "fp16")
    assert document.components["model"].outputs == read_model(lane.exported).components["model"].outputs
    half = (tmp_path / "model" / "model.onnx").stat().st_size / (lane.exported / "model.onnx").stat().st_size
    assert half < 0.75


def planted(lane: Any, directory: Path) -> Path:
    """The lane's model with a feed-forward whose hidden values pass 65504, and whose way out takes them back.

    The factor goes into one layer's weights before its activation, a GELU, which hands large numbers on as they are.
    """
    run_optimize(lane.exported, directory)
    model = files.load(lane.exported / "model.onnx")
    gelu = next(node for node in model.graph if node.op_type == "Gelu")
    added = gelu.inputs[0].producer()  # type: ignore[union-attr]
    before = added.inputs[0].producer()  # type: ignore[union-attr]
    after = next(iter(gelu.outputs[0].uses())).node
    for value, factor in ((before.inputs[1], 1e6), (after.inputs[1], 1e-6)):  # type: ignore[union-attr]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor))  # type: ignore[union-attr]
    files.save(model, directory, "model")
    return directory


def test_a_model_that_overflows_fp16_agrees_with_islands_and_is_not_finite_without(
    lane_of: LaneOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = lane_of("bert")
    directory = planted(lane, tmp_path / "planted")
    fields = Variant(**HALVES[Precision.FP16])

    def make(name: str) -> dict[str, JSON]:
        (tmp_path / name).mkdir()
        task, progress = registry.get(TASK), SilentProgress()
        return make_variant(directory, lane.rows, tmp_path / name, fields, task, CUDA, progress)

    facts: Any = make("islands")["fp16"]
    # The mask and the two sums with it, as ever; and the product, with its bias, and its GELU.
    assert facts["model"]["values_beyond"] == 3 + 3
    assert deviation(simulated(tmp_path / "islands"), logits(directory)) < 5e-3
    # The same pass, told that everything fits.
    monkeypatch.setattr("modelmill.steps.calibrate_quantize.for_gpu.does_not_fit", lambda *_: False)
    make("none")
    assert not np.isfinite(simulated(tmp_path / "none")).all()


def test_an_int8_product_of_values_beyond_fp16_is_an_island(lane_of: LaneOf, tmp_path: Path) -> None:
    lane = lane_of("bert")
    directory = planted(lane, tmp_path / "planted")
    variant, task = Variant(**{**INT8, "rest": Precision.FP16}), registry.get(TASK)
    (tmp_path / "model").mkdir()
    make_variant(directory, lane.rows, tmp_path / "model", variant, task, TENSORRT, SilentProgress())
    found = simulated(tmp_path / "model")
    assert np.isfinite(found).all()
    assert deviation(found, logits(directory)) < 0.15


@pytest.mark.parametrize("calibration", [Calibration.PERCENTILE, Calibration.ENTROPY])
def test_ranges_are_clipped_as_the_variant_says(lane_of: LaneOf, tmp_path: Path, calibration: Calibration) -> None:
    lane = lane_of("bert")
    made(lane, tmp_path / "clipped", **INT8, calibration=calibration)
    made(lane, tmp_path / "whole", **INT8)
    scales = [
        [float(graph.constants[node.input[1]]) for node in graph.of("QuantizeLinear")]
        for graph in (Graph(tmp_path / "clipped"), Graph(tmp_path / "whole"))
    ]
    assert sum(scales[0]) < sum(scales[1])


def test_products_that_are_kept_are_not_quantized(lane_of: LaneOf, tmp_path: Path) -> None:
    facts: Any = made(lane_of("bert"), tmp_path / "model", **INT8, keep_float=["model/0", "model/pair0"])
    assert (facts["quantized"]["model"]["MatMul"], facts["quantized"]["model"]["Pair"]) == (11, 3)


def test_scales_are_the_same_number_in_every_type() -> None:
    for largest in (1e-9, 3e-4, 0.7, 6.0, 1234.5):
        scale = scale_of((-largest, largest / 2))
        assert scale * 127 >= largest
        assert float(np.float16(scale)) == scale


def test_the_same_rows_give_the_same_bytes(lane_of: LaneOf, tmp_path: Path) -> None:
    for name in ("one", "other"):
        made(lane_of("bert"), tmp_path / name, **INT8, rest=Precision.FP16)
    assert (tmp_path / "one" / "model.onnx").read_bytes() == (tmp_path / "other" / "model.onnx").read_bytes()


def test_shared_and_transposed_weights_are_quantized_once_along_their_outputs(tmp_path: Path) -> None:
    model = ir.from_proto(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 20]> shared (float[b, 3] x) => (float[b, 3] y) '
            "<float[3, 3] weight = {1., 2., 3., 10., 20., 30., 100., 200., 300.}> "
            "{ first = Gemm <transB = 1> (x, weight)  y = Gemm <transB = 1> (first, weight) }"
        )
    )
    assert quantize_for_tensorrt(model, {"x": (-1, 1), "first": (-60, 60)}, residuals=False) == {"Gemm": 2}
    files.save(model, tmp_path, "model")
    graph = Graph(tmp_path)
    (weight,) = [node for node in graph.of("DequantizeLinear") if node.input[0] in graph.constants]
    scales = graph.constants[weight.input[1]] * 127
    assert np.allclose(scales, [3, 30, 300], rtol=1e-2)
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    x = np.array([[1.0, -1.0, 0.5]], np.float32)
    matrix = np.array([[1, 2, 3], [10, 20, 30], [100, 200, 300]], np.float32)
    wanted = x @ matrix.T @ matrix.T
    assert deviation(session.run(None, {"x": x})[0], wanted) < 0.02
