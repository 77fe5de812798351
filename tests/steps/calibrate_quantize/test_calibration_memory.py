"""Calibration in bounded memory, measured in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lane_steps import TASK, make_rows, run_export
from modelmill.core import child
from modelmill.core.errors import RecipeError
from modelmill.core.rows import Dataset, Role, Row, write_rows
from modelmill.measuring.predicting import length_of
from modelmill.steps.calibrate_quantize.contract import Calibration
from modelmill.steps.calibrate_quantize.memory_budget import Budget
from modelmill.targets.pytorch import load_processor
from modelmill.tasks import registry
from small_models import WORDS, make_checkpoint

# One process imports; each case is a fork of it, whose peak starts at what is resident then.
CASES = """
import json, os, sys
from pathlib import Path
from modelmill.core.errors import ModelmillError
from modelmill.core.memory import peak_rss_bytes
from modelmill.core.progress import SilentProgress
from modelmill.steps.calibrate_quantize.contract import Variant
from modelmill.steps.calibrate_quantize.variants import make_variant
from modelmill.targets.base import Runtime
from modelmill.tasks import registry

def run(model, rows, output, fields):
    variant = Variant(precision="int8", scheme="static", **fields)
    Path(output).mkdir()
    task, error = registry.get("text-classification"), None
    try:
        make_variant(Path(model), Path(rows), Path(output), variant, task, Runtime.OPENVINO, SilentProgress())
    except ModelmillError as raised:
        error = [type(raised).__name__, raised.exit_code, str(raised)]
    return {"peak": peak_rss_bytes(), "error": error}

for line in sys.stdin:
    given, taken = os.pipe()
    if not os.fork():
        os.write(taken, json.dumps(run(*json.loads(line))).encode())
        os._exit(0)
    os.close(taken)
    print(os.read(given, 65536).decode(), flush=True)
    os.wait()
"""


class Cases:
    """Makes variants of a model, each in a process of its own."""

    def __init__(self, model: Path, rows: Path, folder: Path) -> None:
        self._model, self._rows, self._folder = model, rows, folder
        self._child = subprocess.Popen(
            [sys.executable, "-c", CASES],
            env=child.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, **fields: Any) -> dict[str, Any]:
        """What came of a variant that is made below the folder."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        case = [str(self._model), str(self._rows), str(self._folder / name), fields]
        self._child.stdin.write(json.dumps(case) + "\n")
        self._child.stdin.flush()
        found: dict[str, Any] = json.loads(self._child.stdout.readline())
        return found

    def close(self) -> None:
        """End the process."""
        self._child.communicate()


def exported(folder: Path, intermediate_size: int) -> Path:
    labels = ["alpha", "beta", "gamma"]
    make_checkpoint(folder / "checkpoint", "bert", labels=labels, intermediate_size=intermediate_size)
    run_export(folder / "checkpoint", folder / "exported")
    return folder / "exported"


def rows_of_one_length(directory: Path, count: int) -> Path:
    directory.mkdir()
    rows: list[Row] = [
        {"id": f"rows:{index}", "text": " ".join(WORDS[index % 5 : index % 5 + 20]), "label": "alpha"}
        for index in range(count)
    ]
    columns = ["text", "label"]
    write_rows(directory, Dataset(task=TASK, role=Role.CALIBRATE, columns=columns, labels=["alpha"], count=count), rows)
    return directory


def test_a_budget_makes_batches_smaller_and_what_does_not_fit_one_row_is_refused(tmp_path: Path) -> None:
    cases = Cases(exported(tmp_path, 16384), rows_of_one_length(tmp_path / "rows", 96), tmp_path)
    asked = {"calibration": "percentile"}
    try:
        roomy = cases.run("roomy", **asked, max_calibration_rss_bytes=10**12)
        most = roomy["peak"] - 60_000_000
        within = cases.run("within", **asked, max_calibration_rss_bytes=most)
        tight = cases.run("tight", **asked, max_calibration_rss_bytes=50_000_000)
    finally:
        cases.close()
    # The widest values of 512 tokens are 130 MB, and those of one row of 22 are 6.
    assert within["error"] is None
    assert within["peak"] <= most
    kind, exit_code, words = tight["error"]
    assert (kind, exit_code) == ("RecipeError", 2)
    assert "calibrating takes" in words
    assert "with the loaded model, and the recipe allows 50 MB" in words
    assert "search.max_calibration_rss_bytes" in words
    assert tight["peak"] < most
    # How many rows stand in a batch reaches no byte.
    assert (tmp_path / "within" / "model.onnx").read_bytes() == (tmp_path / "roomy" / "model.onnx").read_bytes()


def test_batches_grow_from_the_longest_row_to_what_the_budget_holds(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", "bert", labels=["alpha", "beta"])
    task, processor = registry.get(TASK), load_processor(tmp_path / "checkpoint")
    rows = [{"text": " ".join(WORDS[:count]), "label": "alpha"} for count in [4] * 40 + [9] * 40 + [30]]
    features = task.encode(processor, rows, 64)
    resident = [1000]
    sizes = []
    # What is resident follows the largest batch, as an arena does.
    for count, batch in Budget(3000, lambda: resident[0]).batches(task, processor, features):
        ids = batch["input_ids"]
        assert np.asarray(batch["attention_mask"]).all(), "padded"
        sizes.append((count, ids.shape[1]))
        resident[0] = max(resident[0], 1000 + 10 * ids.size)
    longest = max(length_of(row) for row in features)
    assert sizes[0] == (1, longest)
    assert sum(count for count, _ in sizes) == 81
    # 0.8 of 2,000 bytes at 10 a token.
    assert max(count * length for count, length in sizes[1:]) <= 160
    assert max(count for count, _ in sizes) > 10
    with pytest.raises(RecipeError, match="with the loaded model") as caught:
        next(Budget(999, lambda: 1000).batches(task, processor, features))
    assert caught.value.where == "search.max_calibration_rss_bytes"
    resident[0] = 1000
    given = Budget(3000, lambda: resident[0]).batches(task, processor, features)
    next(given)
    # What one row brings beyond the budget, no smaller batch keeps within it.
    resident[0] = 3001
    with pytest.raises(RecipeError, match=f"with a batch of {longest} tokens"):
        next(given)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_calibration_rows(tmp_path: Path) -> None:
    """Kept in memory, as onnxruntime#10503 tells, the values of 4,096 rows would be 400 MB."""
    cases = Cases(exported(tmp_path, 1024), make_rows(tmp_path / "rows", 4096), tmp_path)
    try:
        peaks = {
            calibration.value: [
                cases.run(f"{calibration.value}-{count}", calibration=calibration.value, calibration_rows=count,
                          smooth=0.5)["peak"]
                for count in (64, 4096)
            ]
            for calibration in Calibration
        }  # fmt: skip
    finally:
        cases.close()
    for few, many in peaks.values():
        assert many <= 1.2 * few, peaks
