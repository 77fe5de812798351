from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from modelmill.core.errors import ModelError, UsageError
from modelmill.core.model import Chain, Stage
from modelmill.targets.base import Runtime
from modelmill.targets.openvino_cpu import open_session
from modelmill.targets.registry import open_session_of
from two_graphs import batch, change, write_two_graphs


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_two_graphs(tmp_path)


def test_a_later_graph_is_fed_by_an_earlier_one_and_dtypes_become_the_graphs(model: Path) -> None:
    values = open_session(model, 2).run(batch())
    assert sorted(values) == ["hidden", "total"]
    assert values["total"].tolist() == [[30.0, 32.0], [20.0, 21.0]]


def test_what_was_answered_stays_when_the_session_answers_again(model: Path) -> None:
    session = open_session(model, 1)
    first = session.run(batch())["total"]
    session.run(batch(input_ids=np.asarray([[0, 0, 0], [0, 0, 0]])))
    assert first.tolist() == [[30.0, 32.0], [20.0, 21.0]]


def test_several_threads_get_their_own_answers_from_one_session(model: Path) -> None:
    session = open_session(model, 1)
    shapes = [(rows, length) for rows in (1, 2, 5) for length in (3, 4, 9)] * 4

    def total(shape: tuple[int, int]) -> list[list[float]]:
        ids, mask = np.full(shape, shape[1] % 3), np.ones(shape)
        return session.run(batch(input_ids=ids, attention_mask=mask))["total"].tolist()

    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(total, shapes))
    row = [[[length * (10.0 * (length % 3) + digit) for digit in (0, 1)]] * rows for rows, length in shapes]
    assert found == row


def test_a_missing_column_is_named(model: Path) -> None:
    incomplete = batch()
    del incomplete["attention_mask"]
    with pytest.raises(ModelError, match="takes attention_mask, which the batch does not have"):
        open_session(model, 1).run(incomplete)


def test_an_input_of_other_dimensions_is_one_message_with_the_shapes(model: Path) -> None:
    with pytest.raises(ModelError, match=r"'table' refuses its input \(input_ids int64\[3\]\)") as found:
        open_session(model, 1).run(batch(input_ids=np.asarray([1, 2, 0])))
    assert "\n" not in found.value.what


def test_a_damaged_graph_is_one_message(model: Path) -> None:
    (model / "sum.onnx").write_bytes((model / "sum.onnx").read_bytes()[:40])
    with pytest.raises(ModelError, match=r"OpenVINO .* cannot load the graph: ") as found:
        open_session(model, 1)
    assert found.value.where == str(model / "sum.onnx")
    assert "\n" not in found.value.what


def test_a_graph_with_other_inputs_than_declared_is_refused(model: Path) -> None:
    (model / "sum.onnx").write_bytes((model / "table.onnx").read_bytes())
    with pytest.raises(ModelError, match="gives the graph 'sum' the inputs"):
        open_session(model, 1)


def test_a_stage_of_a_graph_that_is_not_there_is_refused(model: Path) -> None:
    change(model, execution=Chain(stages=[Stage(component="decoder", feeds={}, gives={})]))
    with pytest.raises(ModelError, match="runs the graph 'decoder'"):
        open_session(model, 1)


def test_loading_openvino_sends_no_telemetry() -> None:
    """Importing openvino imports openvino_telemetry and sends an event: none of it may be loaded."""
    code = "import sys, modelmill.targets.openvino_cpu\nprint([m for m in sys.modules if 'openvino_telemetry' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_runtime_that_is_not_installed_is_named_with_the_fix(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A missing distribution cannot be made beside the tests' own.
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(UsageError, match="the runtime openvino needs the package openvino") as found:
        open_session_of(Runtime.OPENVINO)(model, 1)
    assert "pip install" in str(found.value.fix)
