"""What is said of ours and the peers' timings, on timings that are made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from modelmill.measuring.rounds import Rounds
from peers.table import against_peers, markdown, noise_of, over_baseline
from peers.time_models import AGAIN, BASELINE

OURS_ONNX, OURS_OPENVINO = "modelmill on onnxruntime", "modelmill on openvino"
PEER_ONNX, PEER_OPENVINO = "ONNX Runtime dynamic int8", "OpenVINO + NNCF int8"


def _timed(milliseconds: Mapping[str, float], spread: float = 0.01) -> list[Rounds]:
    draw = np.random.default_rng(0)
    return [
        Rounds({name: value / 1e3 * np.exp(spread * draw.standard_normal(30)) for name, value in milliseconds.items()})
        for _ in range(3)
    ]


def _result(processes: Sequence[Rounds], **changed: Any) -> dict[str, Any]:
    return {
        "date": "2026-01-01",
        "hardware": "cpu/made-up",
        "processes": 3,
        "seconds": 15.0,
        "cells": {"texts": over_baseline(processes)},
        "noise": {"texts": list(noise_of(processes))},
        "against_peers": {"texts": against_peers(processes)},
        "accuracy": {name: 0.9 for name in processes[0].seconds if name != AGAIN},
        "verdicts": {},
        "size_ratio": {OURS_ONNX: 0.25},
        "failures": {},
        "search_seconds": {"onnxruntime": 240.0},
        **changed,
    }


def test_ours_is_held_against_the_fastest_peer_on_its_engine_and_on_any() -> None:
    times = {BASELINE: 40.0, AGAIN: 40.0, PEER_ONNX: 12.0, PEER_OPENVINO: 9.0, OURS_ONNX: 8.0, OURS_OPENVINO: 9.0}
    found = against_peers(_timed(times))
    assert (found["any"]["ours"], found["any"]["peer"]) == (OURS_ONNX, PEER_OPENVINO)
    assert found["any"]["ratio"] == pytest.approx(9 / 8, rel=0.01)
    assert (found["any"]["difference"], found["any"]["same_engine"]) == ("faster", False)
    assert found["onnxruntime"]["ratio"] == pytest.approx(1.5, rel=0.01)
    assert (found["openvino"]["difference"], found["openvino"]["same_engine"]) == ("within noise", True)


def test_a_difference_within_what_the_baseline_shows_against_itself_is_none() -> None:
    times = {BASELINE: 40.0, AGAIN: 50.0, PEER_ONNX: 9.0, OURS_ONNX: 8.0}
    found = against_peers(_timed(times))
    assert found["any"]["ratio_ci"][0] > 1.1
    assert found["any"]["difference"] == "within noise"


def test_an_engine_without_a_peer_or_without_ours_is_left_out() -> None:
    assert list(against_peers(_timed({BASELINE: 40.0, AGAIN: 40.0, OURS_ONNX: 8.0}))) == ["any"]
    assert against_peers(_timed({BASELINE: 40.0, AGAIN: 40.0, PEER_ONNX: 8.0})) == {}
    assert "| texts | – | – | – |" in markdown(_result(_timed({BASELINE: 40.0, AGAIN: 40.0, PEER_ONNX: 8.0})))


def test_the_table_names_what_was_refused_and_what_did_not_run() -> None:
    processes = _timed({BASELINE: 40.0, AGAIN: 40.0, PEER_ONNX: 12.0, OURS_ONNX: 8.0})
    table = markdown(_result(processes, verdicts={OURS_ONNX: "fail"}, failures={PEER_OPENVINO: "ValueError: no"}))
    assert f"| {OURS_ONNX} (fail) | 0.9000 | 0.250 | 5.0" in table
    assert f"{PEER_OPENVINO}: did not run: ValueError: no" in table
    assert f"(onnxruntime; {PEER_ONNX})" in table
    assert AGAIN not in table
    assert "| PyTorch eager against itself | | | [0.9" in table
    assert "Searching took onnxruntime 240 s." in table
