from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lane_steps import make_rows
from modelmill.steps.calibrate_quantize.calibration import spread_rows
from modelmill.steps.calibrate_quantize.static import scale_of
from modelmill.steps.calibrate_quantize.weights import FULL_RANGE, REDUCED_RANGE, quantize_columns, quantize_rows


@pytest.mark.parametrize("limit", [FULL_RANGE, REDUCED_RANGE])
def test_every_weight_is_within_half_a_step_of_its_channel(limit: int) -> None:
    weight = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32) * np.logspace(
        -3, 2, 20, dtype=np.float32
    )
    integers, scale = quantize_columns(weight, limit)
    assert (integers.dtype, scale.dtype, scale.shape) == (np.int8, np.float32, (20,))
    assert np.abs(integers.astype(int)).max() == limit
    assert (np.abs(integers * scale - weight) <= scale * 0.5001).all()


def test_a_channel_of_zeros_stays_zero() -> None:
    integers, scale = quantize_columns(np.zeros((4, 3), dtype=np.float32), FULL_RANGE)
    assert not integers.any()
    assert np.isfinite(scale).all()


def test_every_row_of_a_table_has_its_own_scale() -> None:
    table = np.asarray([[1.0, -2.0], [100.0, 50.0]], dtype=np.float32)
    integers, scale = quantize_rows(table)
    assert integers.tolist() == [[64, -127], [127, 64]]
    assert scale.ravel() == pytest.approx([2 / 127, 100 / 127])


@pytest.mark.parametrize("extremes", [(-1.5, 3.0), (0.2, 0.9), (-4.0, -1.0), (0.0, 0.0), (-1e-3, 1e4)])
def test_a_range_holds_zero_exactly_and_both_ends(extremes: tuple[float, float]) -> None:
    scale, zero = scale_of(extremes)
    assert 0 <= zero <= 255
    assert scale > 0
    assert (0 - zero) * scale <= min(extremes[0], 0) + scale / 2
    assert (255 - zero) * scale >= max(extremes[1], 0) - scale / 2


def test_the_last_bits_of_a_range_do_not_reach_the_scale() -> None:
    assert scale_of((-1.2345678, 3.3333333)) == scale_of((-1.2345679, 3.3333337))


def test_rows_are_spread_over_the_whole_file(tmp_path: Path) -> None:
    rows = list(spread_rows(make_rows(tmp_path / "rows", 90), 9))
    assert [row["id"] for row in rows] == [f"rows:{index}" for index in range(0, 90, 10)]
    assert {row["label"] for row in rows} == {"alpha", "beta", "gamma"}
    assert len(list(spread_rows(tmp_path / "rows", 500))) == 90
