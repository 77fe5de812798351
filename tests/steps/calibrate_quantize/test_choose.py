from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lane_steps import run_choose
from modelmill.core.errors import RecipeError
from modelmill.steps.calibrate_quantize.contract import ChooseSettings, Scheme
from modelmill.steps.calibrate_quantize.run import choose_by_rule
from modelmill.targets.base import Precision, Runtime

VNNI = ["avx2", "avx512_vnni", "avx512f"]


def settings(**changes: Any) -> ChooseSettings:
    allowed = changes.pop("precisions", [Precision.FLOAT32, Precision.INT8])
    return ChooseSettings(task="text-classification", runtime=Runtime.ONNXRUNTIME, precisions=allowed, **changes)


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
    choice = choose_by_rule(settings(**changes), VNNI)
    assert (choice.precision, choice.scheme) == (precision, scheme)
    assert choice.reason


def test_a_scheme_of_no_allowed_precision_is_refused() -> None:
    with pytest.raises(RecipeError, match="static gives none of the allowed precisions"):
        choose_by_rule(settings(precisions=[Precision.FLOAT32], scheme=Scheme.STATIC), VNNI)


@pytest.mark.parametrize(
    ("instruction_set", "reduced"),
    [(VNNI, False), (["avx2", "avx_vnni"], False), (["avx2", "fma"], True), (["asimd"], False)],
)
def test_seven_bits_are_a_recorded_choice_where_eight_saturate(instruction_set: list[str], reduced: bool) -> None:
    choice = choose_by_rule(settings(), instruction_set)
    assert choice.reduce_range is reduced
    assert ("7 bits" in choice.reason) is reduced


def test_the_choice_is_one_document(lane_of: Callable[[str], Any], tmp_path: Path) -> None:
    lane = lane_of("bert")
    choice = run_choose(lane.optimized, lane.rows, tmp_path / "choice", calibration_rows=12)
    assert [path.name for path in (tmp_path / "choice").iterdir()] == ["choice.json"]
    assert choice.calibration_rows == 12
