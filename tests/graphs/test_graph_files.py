from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from modelmill.core.errors import ModelError
from modelmill.graphs import files

TEXT = """<ir_version: 10, opset_import: ["" : 20]>
host (float[s3, 64] x) => (float[s3, 64] y) { h = MatMul (x, second) y = MatMul (h, first) }"""


def model() -> ir.Model:
    """A graph with two matrices and the traces that an exporter leaves."""
    proto = onnx.parser.parse_model(TEXT)
    for name in ("second", "first"):
        array = np.random.default_rng(len(name)).normal(size=(64, 64)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    proto.producer_name, proto.doc_string = "pytorch", "made at /home/somebody"
    proto.graph.node[0].doc_string = "File /usr/lib/torch.py"
    proto.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/usr/lib/torch.py")
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("h", 1, ["s3", 64]))
    return ir.from_proto(proto)


def answer(path: Path) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.eye(64, dtype=np.float32)})[0]


def test_traces_of_the_host_are_not_written(tmp_path: Path) -> None:
    assert files.save(model(), tmp_path, "graph") == []
    written = onnx.load(tmp_path / "graph.onnx")
    assert written.producer_name == "modelmill"
    assert not written.graph.value_info
    for tensor in written.graph.initializer:
        tensor.ClearField("raw_data")
    assert b"/" not in written.SerializeToString()


def test_weights_beyond_the_limit_lie_beside_the_graph_and_answer_alike(tmp_path: Path) -> None:
    embedded, beside = tmp_path / "embedded", tmp_path / "beside"
    embedded.mkdir()
    beside.mkdir()
    files.save(model(), embedded, "graph")
    assert files.save(model(), beside, "graph", embed_limit_bytes=2 * 64 * 64 * 4 - 1) == ["graph.onnx.data"]
    assert (beside / "graph.onnx").stat().st_size < 2000
    assert (beside / "graph.onnx.data").stat().st_size >= 2 * 64 * 64 * 4
    assert (answer(embedded / "graph.onnx") == answer(beside / "graph.onnx")).all()


def test_external_data_has_the_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files.save(model(), tmp_path / name, "graph", embed_limit_bytes=0)
    for name in ("graph.onnx", "graph.onnx.data"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_axes_get_the_names_of_the_task(tmp_path: Path) -> None:
    named = model()
    files.name_axes(named, {"x": {0: "batch"}})
    component = files.component_of(named, "graph", [])
    assert component.inputs[0].shape == ["batch", 64]
    assert component.outputs[0].shape == ["batch", 64]


def test_an_axis_that_must_vary_and_is_fixed_is_refused() -> None:
    with pytest.raises(ModelError, match=r"fixes the axis 1 \(sequence\) of x to 64"):
        files.name_axes(model(), {"x": {1: "sequence"}})


def test_what_is_no_graph_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match="the graph cannot be read"):
        files.load(tmp_path / "graph.onnx")
