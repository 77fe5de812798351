"""A bundle loads where people load models: transformers' runner, optimum, transformers.js; all give one answer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoTokenizer
from transformers.exporters.metadata import ExportMetadata
from transformers.exporters.runners.runner_onnx import OnnxModelRunner

from environments import optimum_python
from javascript import node_modules, require_node

TEXTS = ["my card is lost", "pin"]
LANES = [".", "lanes/cpu-float"]
"""One graph in a file, and one with external data."""

OPTIMUM = """
import json, sys, warnings
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import PreTrainedTokenizerFast, pipeline
texts, found = json.loads(sys.argv[1]), []
for directory in sys.argv[2:]:
    model = ORTModelForSequenceClassification.from_pretrained(directory)
    # A class of transformers 5 is named in tokenizer_config.json, which 4 does not know; tokenizer.json is the same.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    found.append(pipeline("text-classification", model=model, tokenizer=tokenizer)(texts))
print(json.dumps(found))
"""
JAVASCRIPT = """
import { pipeline, env } from "@huggingface/transformers";
const [folder, name, options, texts] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = folder;
const classify = await pipeline("text-classification", name, JSON.parse(options));
console.log(JSON.stringify(await classify(JSON.parse(texts))));
"""


def expected(directory: Path) -> list[dict[str, Any]]:
    """What onnxruntime gives, as a pipeline of transformers writes it."""
    batch = AutoTokenizer.from_pretrained(directory)(TEXTS, padding=True, return_tensors="np")
    session = onnxruntime.InferenceSession(directory / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {name: batch[name] for name in ("input_ids", "attention_mask")})
    scores = np.exp(logits - logits.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    labels = ["alpha", "beta", "gamma"]
    return [{"label": labels[int(row.argmax())], "score": pytest.approx(float(row.max()), abs=1e-5)} for row in scores]


def last_line(command: list[str | Path], **options: Any) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("lane", LANES)
def test_transformers_own_onnx_runner_runs_it(bundle: Path, lane: str) -> None:
    directory = bundle / lane
    session = onnxruntime.InferenceSession(directory / "model.onnx", providers=["CPUExecutionProvider"])
    _, spec = torch.utils._pytree.tree_flatten([torch.zeros(1)])
    runner = OnnxModelRunner(ExportMetadata(out_spec=torch.utils._pytree.treespec_dumps(spec)), session)
    batch = AutoTokenizer.from_pretrained(directory)(TEXTS, padding=True, return_tensors="pt")
    (logits,) = runner(**batch)
    labels = ["alpha", "beta", "gamma"]
    scores = [(labels[int(row.argmax())], float(row.max())) for row in logits.softmax(-1)]
    assert [{"label": label, "score": score} for label, score in scores] == expected(directory)


@pytest.mark.slow
def test_optimum_loads_it_and_answers_the_same(bundle: Path) -> None:
    directories = [bundle / lane for lane in LANES]
    found = last_line([optimum_python(), "-W", "ignore", "-c", OPTIMUM, json.dumps(TEXTS), *directories])
    assert found == [expected(directory) for directory in directories]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"dtype": "q8"}, {"dtype": "fp32", "subfolder": ""}], ids=["from onnx/", "from the root"]
)
def test_transformers_js_loads_it_and_answers_the_same(bundle: Path, tmp_path: Path, options: dict[str, str]) -> None:
    node = require_node()
    script = node_modules("@huggingface/transformers@4.3.1") / f"{tmp_path.name}.mjs"
    # Where Node looks for the package.
    script.write_text(JAVASCRIPT, "utf-8")
    try:
        folder = f"{bundle.parent}/"
        found = last_line([node, script, folder, bundle.name, json.dumps(options), json.dumps(TEXTS)])
    finally:
        script.unlink()
    assert found == expected(bundle)
