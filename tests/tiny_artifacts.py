"""A tiny classifier in model artifacts, and rows to ask it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from modelmill.core.model import read_model, write_model
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import Dataset, Role, Row, write_rows
from modelmill.steps.export import contract as export
from modelmill.steps.export.run import run as run_export
from small_models import WORDS

LABELS = ["alpha", "beta", "gamma"]


def random_rows(count: int, seed: int = 0, labels: list[str] = LABELS) -> list[Row]:
    """Rows of one to forty words, so that batches need padding."""
    drawn = np.random.default_rng(seed)
    texts = [" ".join(drawn.choice(WORDS, size=drawn.integers(1, 41))) for _ in range(count)]
    return [
        {"id": f"rows.jsonl:{n + 1}", "text": text, "label": labels[n % len(labels)]} for n, text in enumerate(texts)
    ]


def rows_artifact(directory: Path, rows: list[Row], labels: list[str] = LABELS) -> Path:
    """Write evaluation rows."""
    directory.mkdir(parents=True, exist_ok=True)
    dataset = Dataset(
        task="text-classification", role=Role.EVALUATE, columns=["text", "label"], labels=labels, count=len(rows)
    )
    write_rows(directory, dataset, rows)
    return directory


def export_checkpoint(checkpoint: Path, directory: Path) -> Path:
    """Export a checkpoint with the step."""
    settings = export.Settings(task="text-classification")
    run_export(export.Inputs(checkpoint=checkpoint), export.Outputs(model=directory), settings, SilentProgress())
    return directory


def quantize_graph(exported: Path, directory: Path) -> Path:
    """The exported model in onnxruntime's dynamic int8: a text's logits depend on the texts beside it."""
    shutil.copytree(exported, directory, dirs_exist_ok=True)
    document = read_model(exported)
    graph = document.components["model"].file
    model = onnx.load(exported / graph)
    # quantize_dynamic transposes weights and trips over shapes recorded for the old ones.
    del model.graph.value_info[:]
    quantize_dynamic(
        model,
        directory / graph,
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True},
    )
    write_model(directory, document.model_copy(update={"precision": "int8"}))
    return directory
    return directory
