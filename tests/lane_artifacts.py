"""Small, real artifacts of one lane: what gate and publish are given, without training anything."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelmill.core import manifest
from modelmill.core.contract import PortType
from modelmill.core.evidence import EncoderLatency, Measurements
from modelmill.core.hardware import cpu
from modelmill.core.keys import KEY_VARIABLE
from modelmill.core.model import Chain, Component, ModelDocument, Stage, Tensor, write_model
from modelmill.core.predictions import Predictions, write_predictions
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import Dataset, Role, write_rows
from modelmill.core.store import Store
from modelmill.steps.evaluate import contract as evaluate
from modelmill.steps.evaluate.smoke import write_smoke
from modelmill.steps.gate import contract as gate
from modelmill.steps.gate.run import run as run_gate
from modelmill.steps.publish import contract as publish
from modelmill.steps.publish.promote import promote
from modelmill.steps.publish.resolve import resolve
from modelmill.steps.publish.run import run as run_publish
from modelmill.targets.base import Runtime
from signing_keys import Keys

LABELS = ["alpha", "beta", "gamma"]
GIVEN_TO_GATE = ("baseline", "candidate", "measurements", "smoke", "model", "rows")
TASK = "text-classification"


def write_lane_rows(directory: Path, count: int = 300) -> Path:
    """Evaluation rows; some texts would break a careless report."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = ["my card is lost", "<script>alert(1)</script>", "```\nlost & found | *bold* ```"]
    rows = [
        {
            "id": f"test.jsonl:{index + 1}",
            "text": f"{texts[index % 3]} {index}",
            "label": LABELS[index % 3],
            "language": "<b>de</b>" if index % 5 == 0 else "en",
        }
        for index in range(count)
    ]
    dataset = Dataset(task=TASK, role=Role.EVALUATE, columns=["text", "label"], labels=LABELS, count=count)
    write_rows(directory, dataset, rows)
    return directory


def write_lane_predictions(directory: Path, rows: Path, wrong: list[int], labels: list[str] | None = None) -> Path:
    """Predictions that are right but for the rows numbered in ``wrong``."""
    directory.mkdir(parents=True, exist_ok=True)
    count = len((rows / "rows.jsonl").read_text("utf-8").splitlines())
    reference = np.arange(count, dtype=np.int64) % 3
    predicted = reference.copy()
    predicted[wrong] = (predicted[wrong] + 1) % 3
    document = Predictions(
        task=TASK,
        rows=manifest.build(rows, PortType.ROWS).digest,
        count=count,
        labels=labels or LABELS,
        metrics={
            "accuracy": float((predicted == reference).mean()),
            "macro_f1": 0.9,
            "per_class": dict.fromkeys(LABELS, 0.9),
        },
        arrays=["outputs", "predicted", "reference"],
    )
    outputs = np.eye(3, dtype=np.float32)[predicted]
    write_predictions(directory, document, {"outputs": outputs, "predicted": predicted, "reference": reference})
    return directory


def lane_measurements(scale: float = 1.0, speedup_ci: tuple[float, float] = (2.4, 2.6)) -> Measurements:
    """Plausible timings; ``scale`` stands for how they differ from run to run."""
    cell = EncoderLatency(
        batch_size=1,
        sequence_length=128,
        baseline_ms_p50=10.0 * scale,
        baseline_ms_p95=11.0 * scale,
        unquantized_ms_p50=7.0 * scale,
        candidate_ms_p50=4.0 * scale,
        candidate_ms_p95=4.4 * scale,
        speedup=2.5,
        speedup_ci=speedup_ci,
        gain_over_unquantized=1.75,
        gain_over_unquantized_ci=(1.7, 1.8),
        samples_ms={"baseline": [10.0 * scale], "unquantized": [7.0 * scale], "candidate": [4.0 * scale]},
    )
    hardware = cpu()
    return Measurements(
        hardware=hardware,
        hardware_class=hardware.hardware_class,
        packages={"onnxruntime": "1.27.0"},
        latency=[cell],
        noise_ratio_ci=(0.98, 1.02),
        load_seconds=0.2 * scale,
        peak_rss_bytes=200 << 20,
        size_bytes=23 << 20,
        checkpoint_bytes=90 << 20,
        size_ratio=23 / 90,
    )


def write_lane_measurements(directory: Path, measurements: Measurements) -> Path:
    """A measurements artifact."""
    directory.mkdir(parents=True, exist_ok=True)
    manifest.write_json(directory / "measurements.json", measurements.model_dump(mode="json"))
    return directory


def write_lane_model(
    directory: Path,
    checkpoint: Path,
    precision: str = "int8",
    seed: int = 0,
    external: bool = False,
    labels: list[str] | None = None,
) -> Path:
    """A model artifact: a real, tiny ONNX classifier (embeddings averaged, one dense layer) and a real tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    processors = sorted(path.name for path in checkpoint.iterdir() if path.name.startswith(("tokenizer", "special")))
    for name in (*processors, "config.json"):
        shutil.copyfile(checkpoint / name, directory / name)
    generator = np.random.default_rng(seed)
    weights = {
        "table": generator.standard_normal((512, 16), dtype=np.float32),
        "dense": generator.standard_normal((16, 3), dtype=np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Mul", ["embedded", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["summed"], keepdims=0),
        helper.make_node("ReduceSum", ["wide", "axis"], ["count"], keepdims=0),
        helper.make_node("Div", ["summed", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "dense"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    constants += [
        numpy_helper.from_array(np.asarray([-1], np.int64), "last"),
        numpy_helper.from_array(np.asarray([1], np.int64), "axis"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    data = ["model.onnx.data"] if external else []
    onnx.save_model(
        model,
        directory / "model.onnx",
        save_as_external_data=external,
        location="model.onnx.data" if external else None,
        size_threshold=64,
    )
    columns = [
        Tensor(name=name, dtype="int64", shape=["batch", "sequence"]) for name in ("input_ids", "attention_mask")
    ]
    document = ModelDocument(
        task=TASK,
        architecture="bert",
        labels=labels or LABELS,
        precision=precision,
        opset=20,
        components={
            "model": Component(
                file="model.onnx",
                external_data=data,
                inputs=columns,
                outputs=[Tensor(name="logits", dtype="float32", shape=["batch", 3])],
            )
        },
        execution=Chain(
            stages=[
                Stage(
                    component="model",
                    feeds={name: name for name in ("input_ids", "attention_mask")},
                    gives={"logits": "logits"},
                )
            ]
        ),
        processors={"tokenizer": processors},
        max_length=64,
        facts={"quantized_operators": 3},
    )
    write_model(directory, document)
    return directory


def write_lane_smoke(directory: Path, lane: Mapping[str, Path], target: str) -> Path:
    """A smoke test's artifact for a lane's model, predictions, measurements and rows, where no server is named."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = evaluate.SmokeSettings(target=target, name="banking", runtime=Runtime.ONNXRUNTIME)
    inputs = evaluate.SmokeInputs(
        **{name: lane[name] for name in ("model", "measurements", "rows")}, predictions=lane["candidate"]
    )
    write_smoke(inputs, directory, settings, SilentProgress())
    return directory


def write_lane_choice(directory: Path, reason: str = "int8 is smaller") -> Path:
    """A choice artifact."""
    directory.mkdir(parents=True, exist_ok=True)
    choice = {"format": 1, "precision": "int8", "scheme": "dynamic", "embeddings": True, "calibration_rows": 256}
    manifest.write_json(directory / "choice.json", {**choice, "reason": reason})
    return directory


def judge_lane(
    work: Path,
    checkpoint: Path,
    target: str = "cpu-int8",
    *,
    wrong: list[int] | None = None,
    measurements: Measurements | None = None,
    policy: gate.Policy | None = None,
    seed: int = 0,
    external: bool = False,
    padding_bytes: int = 0,
    labels: list[str] | None = None,
) -> dict[str, Path]:
    """Make a lane's artifacts below ``work`` and run gate on them: port → directory, ``verdict`` and ``report`` too.

    ``padding_bytes`` of zeros lie beside the graph, for tests of large files.
    """
    rows = write_lane_rows(work / "rows")
    directories = {
        "rows": rows,
        "baseline": write_lane_predictions(work / "baseline", rows, [0, 1, 2]),
        "candidate": write_lane_predictions(work / "candidate", rows, wrong if wrong is not None else [0, 1, 3]),
        "measurements": write_lane_measurements(work / "measurements", measurements or lane_measurements()),
        "model": write_lane_model(work / "model", checkpoint, seed=seed, external=external, labels=labels),
    }
    if padding_bytes:
        with (directories["model"] / "padding.bin").open("wb") as stream:
            stream.truncate(padding_bytes)
    directories["smoke"] = write_lane_smoke(work / "smoke", directories, target)
    choice = write_lane_choice(work / "choice")
    outputs = gate.Outputs(verdict=work / "verdict", report=work / "report")
    outputs.verdict.mkdir()
    outputs.report.mkdir()
    settings = gate.Settings(task=TASK, target=target, policy=policy or gate.Policy(max_drop_points=5))
    run_gate(gate.Inputs(**directories), outputs, settings, SilentProgress())
    return {**directories, "choice": choice, "verdict": outputs.verdict, "report": outputs.report}


def publish_lanes(
    bundle: Path, lanes: Mapping[str, Mapping[str, Path]], *, key: Keys | None = None, **settings: Any
) -> Path:
    """Run publish's assembly on judged lanes, signed by ``key``: the bundle's directory."""
    bundle.mkdir(parents=True)
    inputs = publish.Inputs(
        models={target: lane["model"] for target, lane in lanes.items()},
        choices={target: lane["choice"] for target, lane in lanes.items()},
        verdicts={target: lane["verdict"] for target, lane in lanes.items()},
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv(KEY_VARIABLE, raising=False)
        if key is not None:
            environment.setenv(KEY_VARIABLE, str(key.private))
        given = resolve(publish_settings(**settings), SilentProgress())
        run_publish(inputs, publish.Outputs(bundle=bundle), given, SilentProgress())
    return bundle


def publish_settings(**changes: Any) -> publish.Settings:
    """Settings of a plausible recipe."""
    recipe = {
        "name": "banking",
        "task": TASK,
        "model": {"source": "hf://org/base@0123456789"},
        "data": {"source": "file:../data/banking"},
        "retrain": {"method": "fine-tune", "epochs": 2},
        "targets": [{"name": "cpu-int8"}, {"name": "cpu-float"}],
    }
    return publish.Settings(**{"model": "banking", "channel": "staging", "recipe": recipe, "run": "run-1", **changes})


def promoted_in(store: Store, directory: Path, **settings: Any) -> str:
    """Store a bundle and let the channel name it, as a run does: its digest."""
    made = manifest.build(directory, PortType.BUNDLE)
    store.put_artifact(directory, made, SilentProgress())
    outputs = {"bundle": (store.get_artifact(made.digest, SilentProgress()), made.digest)}
    return str(promote(store, outputs, publish_settings(**settings), SilentProgress()).facts["bundle"])


def publish_two(work: Path, checkpoint: Path) -> list[Path]:
    """Two bundles of one model, below ``work``."""
    return [
        publish_lanes(work / f"b{seed}", {"cpu-int8": judge_lane(work / f"l{seed}", checkpoint, seed=seed)})
        for seed in (0, 1)
    ]
