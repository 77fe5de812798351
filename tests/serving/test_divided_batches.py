"""A model whose batches are divided, served: the same parts, and so the same answers, as in the line's own sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from modelmill.core.batch_plan import plan_batches
from modelmill.core.model import MicroBatching, read_model, write_model
from modelmill.serving.triton_model import divide, open_classifier
from modelmill.targets.onnxruntime_cpu import LEFT_OUT

TEXTS = ["my card is lost", "why is my top up pending?", "a", "what is the exchange rate of my card today", "fee " * 20]


@pytest.mark.parametrize("max_tokens", [0, 1, 16, 64, 10_000])
def test_the_servers_parts_are_the_sessions(max_tokens: int) -> None:
    drawn = np.random.default_rng(0)
    for _ in range(50):
        lengths = drawn.integers(1, 64, size=drawn.integers(1, 33)).tolist()
        plan = plan_batches(lengths, max_rows=len(lengths), max_tokens=max(1, max_tokens))
        assert divide(lengths, max_tokens) == [list(part) for part in plan.batches]


@pytest.mark.parametrize("threads", [1, 2])
def test_divided_texts_come_back_in_their_order(exported: Path, tmp_path: Path, threads: int) -> None:
    document = read_model(exported)
    for name in document.files():
        (tmp_path / name).symlink_to(exported / name)
    write_model(tmp_path, document.model_copy(update={"micro_batching": MicroBatching(max_tokens=16, workers=2)}))
    whole, parts = (open_classifier(path, threads).scores(TEXTS) for path in (exported, tmp_path))
    assert np.abs(whole - parts).max() < 1e-6
    assert np.abs(whole - whole[::-1]).max() > 1e-5


def test_the_server_leaves_out_the_fusions_that_the_lines_sessions_leave_out(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Noting(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, *given: Any, disabled_optimizers: list[str] | None = None, **options: Any) -> None:
            asked.append(disabled_optimizers)
            super().__init__(*given, disabled_optimizers=disabled_optimizers, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Noting)
    open_classifier(exported, 1)
    assert asked == [[*LEFT_OUT]]
