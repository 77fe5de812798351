"""Makes one peer's model: ``python make_peer.py PEER CHECKPOINT EXPORTED ROWS OUTPUT``.

It runs in the peer's own environment and imports nothing of this project. ``EXPORTED`` is the line's float32 ONNX
graph, for peers that start from one; ``ROWS`` is an .npz of padded calibration batches (``number/input``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Batches = list[dict[str, Any]]


def ort_dynamic(checkpoint: Path, exported: Path, batches: Batches, output: Path) -> None:
    """onnxruntime's quantize_dynamic on the exported graph, per channel."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(exported)
    # It takes stale shapes of the unquantized weights for an error ("Inferred shape and existing shape differ").
    del model.graph.value_info[:]
    options = {"MatMulConstBOnly": True}
    quantize_dynamic(model, output / "model.onnx", per_channel=True, weight_type=QuantType.QInt8, extra_options=options)


def ort_optimizer_dynamic(checkpoint: Path, exported: Path, batches: Batches, output: Path) -> None:
    """onnxruntime's whole recipe for BERT: the older export, its transformer optimizer, then quantize_dynamic."""
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    model.config.return_dict = False
    # In the order of BertModel.forward.
    names = ("input_ids", "attention_mask", "token_type_ids")
    torch.onnx.export(
        model,
        tuple(torch.from_numpy(batches[0][name]) for name in names),
        output / "exported.onnx",
        input_names=list(names),
        output_names=["logits"],
        dynamic_axes={**{name: {0: "batch", 1: "sequence"} for name in names}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    optimized = optimize_model(str(output / "exported.onnx"), "bert", num_heads=heads, hidden_size=width, opt_level=0)
    # Saving adds what the fused operators need to be found by.
    optimized.save_model_to_file(str(output / "optimized.onnx"))
    graph = onnx.load(output / "optimized.onnx")
    del graph.graph.value_info[:]
    options = {"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True}
    quantize_dynamic(graph, output / "model.onnx", per_channel=True, weight_type=QuantType.QInt8, extra_options=options)


def ort_static(checkpoint: Path, exported: Path, batches: Batches, output: Path) -> None:
    """onnxruntime's static recipe: pre-processing, QDQ, MinMax, per channel, the types that it names for x86.

    Products and embeddings alone: with every operator that it can quantize, its default, it took ten times as long.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    plain = onnx.load(exported)
    del plain.graph.value_info[:]
    onnx.save(plain, output / "plain.onnx")
    # Its symbolic inference of shapes does not know all operators of the exported graph.
    quant_pre_process(output / "plain.onnx", output / "prepared.onnx", skip_symbolic_shape=True)
    quantize_static(
        output / "prepared.onnx",
        output / "model.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )


def optimum_dynamic(checkpoint: Path, exported: Path, batches: Batches, output: Path) -> None:
    """optimum-onnx's dynamic recipe for AVX512-VNNI."""
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    ORTModelForSequenceClassification.from_pretrained(checkpoint, export=True).save_pretrained(output / "plain")
    config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    ORTQuantizer.from_pretrained(output / "plain").quantize(save_dir=output, quantization_config=config)
    (output / "model_quantized.onnx").rename(output / "model.onnx")


def optimum_static(checkpoint: Path, exported: Path, batches: Batches, output: Path) -> None:
    """optimum-onnx's static recipe for AVX512-VNNI, MinMax."""
    from datasets import Dataset
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoCalibrationConfig, AutoQuantizationConfig

    ORTModelForSequenceClassification.from_pretrained(checkpoint, export=True).save_pretrained(output / "plain")
    rows = [{name: column[row].tolist() for name, column in batch.items()} for batch in batches for row in range(1)]
    data = Dataset.from_list(rows)
    quantizer = ORTQuantizer.from_pretrained(output / "plain")
    config = AutoQuantizationConfig.avx512_vnni(is_static=True, per_channel=True)
    ranges = quantizer.fit(
        dataset=data,
        calibration_config=AutoCalibrationConfig.minmax(data),
        operators_to_quantize=config.operators_to_quantize,
    )
    quantizer.quantize(save_dir=output, calibration_tensors_range=ranges, quantization_config=config)
    (output / "model_quantized.onnx").rename(output / "model.onnx")


def nncf_int8(checkpoint: Path, exported: Path, batches: Batches, output: Path) -> None:
    """NNCF's post-training quantization of a transformer, for OpenVINO."""
    import nncf
    import openvino

    model = openvino.Core().read_model(exported)
    quantized = nncf.quantize(model, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(quantized, output / "model.xml")


def nncf_accuracy_control(checkpoint: Path, exported: Path, batches: Batches, output: Path) -> None:
    """NNCF's quantization with accuracy control: agreement with float32 on the calibration rows within 0.2 points."""
    import nncf
    import openvino

    model = openvino.Core().read_model(exported)
    plain = openvino.Core().compile_model(model, "CPU")
    answers = {id(batch): np.argmax(plain(batch)[0], axis=-1) for batch in batches}

    def agreement(compiled: Any, data: Iterator[dict[str, Any]]) -> tuple[float, list[float]]:
        shares = [float((np.argmax(compiled(batch)[0], axis=-1) == answers[id(batch)]).mean()) for batch in data]
        return float(np.mean(shares)), shares

    quantized = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(batches),
        validation_dataset=nncf.Dataset(batches),
        validation_fn=agreement,
        max_drop=0.002,
        model_type=nncf.ModelType.TRANSFORMER,
    )
    openvino.save_model(quantized, output / "model.xml")


def olive_auto(checkpoint: Path, exported: Path, batches: Batches, output: Path) -> None:
    """Olive's automatic optimizer for a CPU in int8."""
    import subprocess

    command = ["auto-opt", "--model_name_or_path", str(checkpoint), "--task", "text-classification"]
    options = ["--output_path", str(output / "olive"), "--device", "cpu", "--precision", "int8"]
    provider = ["--provider", "CPUExecutionProvider"]
    olive = Path(sys.executable).with_name("olive")
    subprocess.run([str(olive), *command, *options, *provider], check=True)
    found = sorted((output / "olive").rglob("*.onnx"), key=lambda path: path.stat().st_mtime)
    found[-1].rename(output / "model.onnx")


PEERS: dict[str, Callable[[Path, Path, Batches, Path], None]] = {
    "ort-dynamic": ort_dynamic,
    "ort-optimizer-dynamic": ort_optimizer_dynamic,
    "ort-static": ort_static,
    "optimum-dynamic": optimum_dynamic,
    "optimum-static": optimum_static,
    "nncf": nncf_int8,
    "nncf-accuracy-control": nncf_accuracy_control,
    "olive": olive_auto,
}


def read_batches(path: Path) -> Batches:
    """The padded batches of an .npz, in their order."""
    with np.load(path, allow_pickle=False) as stored:
        columns = {name: stored[name] for name in stored.files}
    numbers = sorted({int(name.partition("/")[0]) for name in columns})
    return [
        {name.partition("/")[2]: column for name, column in columns.items() if name.startswith(f"{number}/")}
        for number in numbers
    ]


def main() -> None:
    """Make the named peer's model."""
    peer, *paths = sys.argv[1:]
    checkpoint, exported, rows, output = (Path(path) for path in paths)
    output.mkdir(parents=True, exist_ok=True)
    PEERS[peer](checkpoint, exported, read_batches(rows), output)


if __name__ == "__main__":
    main()
