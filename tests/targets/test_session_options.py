"""Options that model.json names, applied by whoever opens the model: the line's sessions and the server's."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest

from lane_steps import TASK
from modelmill.core.errors import ModelError
from modelmill.core.model import read_model, write_model
from modelmill.core.progress import SilentProgress
from modelmill.serving.triton_model import open_classifier
from modelmill.steps.calibrate_quantize.contract import Scheme, Variant
from modelmill.steps.calibrate_quantize.variants import make_variant
from modelmill.steps.evaluate.contract import MeasureInputs, MeasureSettings
from modelmill.steps.evaluate.measurements import timed_models
from modelmill.targets.base import Precision, Runtime
from modelmill.targets.registry import open_session_of
from modelmill.tasks import registry

SPINNING = "session.intra_op.allow_spinning"


def opened_with(model: Path, directory: Path, session: dict[str, str]) -> Path:
    document = read_model(model)
    directory.mkdir()
    for name in document.files():
        (directory / name).symlink_to(model / name)
    write_model(directory, document.model_copy(update={"session": session}))
    return directory


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each session of ONNX Runtime that is opened was told not to spin."""
    found: list[bool] = []

    class Recording(ort.InferenceSession):
        def __init__(self, path: str, options: ort.SessionOptions, **others: object) -> None:
            try:
                found.append(options.get_session_config_entry(SPINNING) == "0")
            except RuntimeError:
                # How ONNX Runtime answers for what was never set.
                found.append(False)
            super().__init__(path, options, **others)

    monkeypatch.setattr(ort, "InferenceSession", Recording)
    return found


def test_what_a_variant_opens_sessions_with_is_in_the_models_document(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    variant = Variant(precision=Precision.FLOAT32, scheme=Scheme.NONE, session={SPINNING: "0"})
    task = registry.get(TASK)
    make_variant(exported, tmp_path, tmp_path / "made", variant, task, Runtime.ONNXRUNTIME, SilentProgress())
    assert read_model(tmp_path / "made").session == {SPINNING: "0"}
    assert read_model(exported).session == {}


def test_the_lines_sessions_and_the_servers_are_opened_with_them(
    exported: Path, tmp_path: Path, seen: list[bool]
) -> None:
    tuned = opened_with(exported, tmp_path / "tuned", {SPINNING: "0"})
    for model, expected in ((exported, False), (tuned, True)):
        seen.clear()
        open_session_of(Runtime.ONNXRUNTIME)(model, 1)
        open_classifier(model, 1)
        assert seen == [expected, expected]


def test_openvino_is_given_them_too(exported: Path, tmp_path: Path) -> None:
    wrong = opened_with(exported, tmp_path / "wrong", {"NO_SUCH_OPTION": "1"})
    with pytest.raises(ModelError, match=r"OpenVINO .* cannot load the graph"):
        open_session_of(Runtime.OPENVINO)(wrong, 1)


def test_an_unquantized_candidate_that_is_opened_otherwise_is_timed_for_itself(
    tiny_bert: Path, exported: Path, tmp_path: Path
) -> None:
    tuned = opened_with(exported, tmp_path / "tuned", {SPINNING: "0"})
    settings = MeasureSettings.model_validate(
        {"task": TASK, "runtime": "onnxruntime", "cells": [{"batch_size": 1, "sequence_length": 8}]}
    )
    for candidate, same_as in ((exported, "optimized"), (tuned, None)):
        models, notes = timed_models(MeasureInputs(tiny_bert, exported, exported, candidate, tmp_path), settings)
        assert models[-1].same_as == same_as
        assert bool(notes) is (same_as is not None)
