from __future__ import annotations

import numpy as np
import pytest

from modelmill.steps.calibrate_quantize.contract import Calibration
from modelmill.steps.calibrate_quantize.histograms import BINS, PERCENTILE, Histogram


def seen(*batches: np.ndarray) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch.astype(np.float32))
    return histogram


def test_the_order_of_batches_does_not_matter_however_the_reach_grows() -> None:
    draw = np.random.default_rng(0)
    batches = [draw.normal(size=(7, 50)) * scale for scale in (0.01, 30.0, 1.0, 5.0)]
    forward, backward = seen(*batches), seen(*reversed(batches))
    assert forward.reach == backward.reach == 128.0
    assert forward.counts.tolist() == backward.counts.tolist()
    assert forward.counts.sum() == 4 * 350
    for calibration in Calibration:
        assert forward.range(calibration) == backward.range(calibration)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_every_value_has_its_bin_also_at_the_ends(scale: float) -> None:
    values = np.asarray([-1.0, -0.5, 0.0, 0.5, 1.0, np.nextafter(np.float32(1.0), np.float32(0.0))]) * scale
    histogram = seen(values)
    assert histogram.counts.sum() == len(values)
    assert np.flatnonzero(histogram.counts).size >= 4


def test_zeros_alone_have_a_range() -> None:
    for calibration in Calibration:
        assert seen(np.zeros((3, 4))).range(calibration) == (0.0, 0.0)


def test_the_percentile_is_that_of_all_values() -> None:
    values = np.random.default_rng(0).normal(size=200_000)
    histogram = seen(*np.split(values, 20))
    outside = (100 - PERCENTILE) / 2
    wanted = np.percentile(values, [outside, 100 - outside])
    assert histogram.range(Calibration.PERCENTILE) == pytest.approx(tuple(wanted), abs=2 * 2 * histogram.reach / BINS)


def test_no_method_goes_beyond_the_extremes_and_minmax_is_them() -> None:
    # A GELU's output: hardly anything below zero.
    values = np.abs(np.random.default_rng(0).normal(size=10_000)) - 0.17
    histogram = seen(values)
    low, high = np.float32(values.min()), np.float32(values.max())
    assert histogram.range(Calibration.MINMAX) == (low, high)
    for calibration in Calibration:
        found = histogram.range(calibration)
        assert low <= found[0] < found[1] <= high


def test_entropy_gives_up_an_outlier_and_keeps_what_is_even() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    _, clipped = seen(values, np.asarray([60.0])).range(Calibration.ENTROPY)
    assert 3 < clipped < 30
    low, high = seen(np.linspace(-1, 1, 100_001)).range(Calibration.ENTROPY)
    assert (low, high) == pytest.approx((-1, 1), abs=0.02)
