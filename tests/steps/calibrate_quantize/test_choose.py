from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lane_steps import choose_settings, run_choose
from modelmill.core.errors import HardwareError, RecipeError, UsageError
from modelmill.steps.calibrate_quantize.contract import Choice, Scheme, Search
from modelmill.steps.calibrate_quantize.run import allowed, by_rule, within_memory
from modelmill.targets.base import Precision, Runtime
from modelmill.targets.registry import RUNTIMES

VNNI = ["avx2", "avx512_vnni", "avx512f"]


def choose_by_rule(instruction_set: list[str], **changes: Any) -> Choice:
    return by_rule(allowed(choose_settings(**changes), instruction_set))


@pytest.mark.parametrize(
    ("changes", "precision", "scheme"),
    [
        ({}, "int8", "dynamic"),
        ({"precisions": [Precision.FLOAT32]}, "float32", "none"),
        ({"scheme": Scheme.STATIC}, "int8", "static"),
        ({"scheme": Scheme.NONE}, "float32", "none"),
    ],
)
def test_int8_is_chosen_where_it_is_allowed_and_a_demanded_scheme_is_kept(
    changes: dict[str, Any], precision: str, scheme: str
) -> None:
    choice = choose_by_rule(VNNI, **changes)
    assert (choice.precision, choice.scheme) == (precision, scheme)
    assert choice.reason


def test_a_scheme_of_no_allowed_precision_is_refused() -> None:
    with pytest.raises(RecipeError, match="static gives none of the allowed precisions"):
        choose_by_rule(VNNI, precisions=[Precision.FLOAT32], scheme=Scheme.STATIC)


def test_a_precision_that_the_runtime_does_not_serve_is_named_and_no_scheme_is_blamed() -> None:
    with pytest.raises(
        RecipeError, match=r"the runtime onnxruntime serves none of the allowed precisions \(fp16\)"
    ) as e:
        choose_by_rule(VNNI, precisions=[Precision.FP16])
    assert e.value.where == "targets.precision"
    assert "scheme" not in str(e.value)


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16"])
def test_bf16_needs_a_processor_that_computes_it_and_the_message_says_so(flag: str) -> None:
    only = {"runtime": Runtime.OPENVINO, "precisions": [Precision.BF16]}
    assert choose_by_rule([*VNNI, flag], **only).precision == Precision.BF16
    with pytest.raises(HardwareError, match="this processor does not compute bf16") as caught:
        choose_by_rule(VNNI, **only)
    assert caught.value.exit_code == 2
    assert flag in str(caught.value)
    assert "scheme" not in str(caught.value)


@pytest.mark.parametrize(
    ("instruction_set", "reduced"),
    [(VNNI, False), (["avx2", "avx_vnni"], False), (["avx2", "fma"], True), (["asimd"], False)],
)
def test_seven_bits_are_a_recorded_choice_where_eight_saturate(instruction_set: list[str], reduced: bool) -> None:
    choice = choose_by_rule(instruction_set)
    assert choice.reduce_range is reduced
    assert ("7 bits" in choice.reason) is reduced


def test_a_runtime_that_is_not_installed_ends_the_search_before_its_first_trial(
    lane_of: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(RUNTIMES[Runtime.OPENVINO], packages=("no-such-runtime",))
    monkeypatch.setitem(RUNTIMES, Runtime.OPENVINO, absent)
    lane = lane_of("bert")
    with pytest.raises(UsageError, match="the runtime openvino needs the package no-such-runtime") as caught:
        run_choose(lane.exported, lane.rows, tmp_path / "choice", runtime=Runtime.OPENVINO, search=Search(trials=3))
    assert caught.value.exit_code == 2
    assert not list((tmp_path / "choice-journal").iterdir())


def test_the_memory_that_calibrating_may_take_goes_with_what_is_calibrated() -> None:
    space = within_memory(allowed(choose_settings(), VNNI), 10**9)
    limits = {item.name: item.variant.max_calibration_rss_bytes for item in space}
    assert limits["static int8"] == limits["static int8, entropy"] == 10**9
    assert limits["dynamic int8"] is None
    assert all(item.variant.max_calibration_rss_bytes is None for item in within_memory(space[:1], None))


def test_the_choice_is_one_document(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    lane = lane_of("bert")
    choice = run_choose(lane.optimized, lane.rows, tmp_path / "choice", calibration_rows=12)
    assert [path.name for path in (tmp_path / "choice").iterdir()] == ["choice.json"]
    assert choice.calibration_rows == 12
