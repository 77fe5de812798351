"""Ranges of streamed values: extremes, and histograms that grow with what they see.

A histogram takes 32 KB whatever it counts; onnxruntime's keep every value until the last (onnxruntime#10503).
"""

from __future__ import annotations

import math

import numpy as np

from modelmill.steps.calibrate_quantize.contract import Calibration

Range = tuple[float, float]
BINS = 4096
PERCENTILE = 99.99
_LEVELS = 256
_LEAST_EXPONENT = -100
_CANDIDATES = 128


class Histogram:
    """Counts of values in 4,096 bins of equal width around zero.

    The bins reach to a power of two on both sides. A value beyond doubles the reach: pairs of bins become one, which
    loses no count, so that the result does not depend on the order of batches.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, dtype=np.int64)
        self._exponent: int | None = None
        self._low, self._high = math.inf, -math.inf

    @property
    def reach(self) -> float:
        """Where the bins end, on both sides of zero."""
        return math.ldexp(1.0, self._exponent or 0)

    @property
    def extremes(self) -> Range:
        """(smallest, largest) value seen."""
        return self._low, self._high

    def add(self, values: np.ndarray) -> None:
        """Count the values of an array of any shape; they are finite."""
        low, high = float(values.min()), float(values.max())
        self._low, self._high = min(self._low, low), max(self._high, high)
        # frexp's exponent: |value| < 2 ** exponent.
        needed = math.frexp(max(-low, high))[1] if max(-low, high) > 0 else _LEAST_EXPONENT
        if self._exponent is None:
            self._exponent = needed
        while self._exponent < needed:
            paired = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(BINS // 4, np.int64), paired, np.zeros(BINS // 4, np.int64)])
            self._exponent += 1
        scaled = np.ldexp(values.reshape(-1), BINS.bit_length() - 2 - self._exponent)
        bins = np.floor(scaled).astype(np.int32) + BINS // 2
        self.counts += np.bincount(bins, minlength=BINS)

    def range(self, calibration: Calibration) -> Range:
        """The range by a method, within the extremes and around zero's bin."""
        if calibration is Calibration.MINMAX:
            return self.extremes
        low, high = _percentile(self.counts) if calibration is Calibration.PERCENTILE else _entropy(self.counts)
        width = 2 * self.reach / BINS
        return max(self._low, (low - BINS // 2) * width), min(self._high, (high - BINS // 2) * width)


def outward(number: float) -> float:
    """A number with 8 bits of mantissa, not nearer to zero."""
    mantissa, exponent = np.frexp(number)
    return float(np.ldexp(np.copysign(np.ceil(abs(mantissa) * 256) / 256, mantissa), exponent))


def _percentile(counts: np.ndarray) -> tuple[int, int]:
    """First bin and the bin after the last that hold all but the outermost values, as many on either side."""
    outside = (1 - PERCENTILE / 100) / 2
    seen = np.cumsum(counts) / counts.sum()
    low, high = int(np.searchsorted(seen, outside, side="right")), int(np.searchsorted(seen, 1 - outside))
    return low, high + 1


def _entropy(counts: np.ndarray) -> tuple[int, int]:
    """The clipped range of least information lost, from 128 thresholds on both sides of zero.

    Source: S. Migacz, 8-bit Inference with TensorRT (GTC 2017), slides 28 to 38: what lies outside is added to the
    outermost bins of the reference, and the threshold with the smallest Kullback-Leibler divergence of the quantized
    distribution from it is taken. A range that is not around zero is clipped at the threshold on either side.
    """
    filled = np.flatnonzero(counts)
    first, last = int(filled[0]), int(filled[-1]) + 1
    middle = BINS // 2
    widest = max(middle - first, last - middle, 1)
    narrowest = min(max(_LEVELS // 2, widest // 8), widest)
    best, found = math.inf, (first, last)
    for threshold in np.unique(np.linspace(narrowest, widest, _CANDIDATES).astype(int)):
        low, high = max(first, middle - int(threshold)), min(last, middle + int(threshold))
        if high <= low:
            continue
        lost = _divergence(counts, low, high)
        if lost < best:
            best, found = lost, (low, high)
    return found


def _divergence(counts: np.ndarray, low: int, high: int) -> float:
    inside = counts[low:high].astype(np.float64)
    reference = inside.copy()
    reference[0] += counts[:low].sum()
    reference[-1] += counts[high:].sum()
    # A level's count is spread evenly over those of its bins that hold anything.
    levels = np.arange(high - low) * _LEVELS // (high - low)
    held = inside > 0
    totals = np.bincount(levels, inside, _LEVELS)
    shares = np.bincount(levels, held, _LEVELS)
    quantized = np.where(held, totals[levels] / np.maximum(shares[levels], 1), 0.0)
    p, q = reference / reference.sum(), quantized / max(quantized.sum(), 1.0)
    # Slide 36 smooths zeros of q; a share of one in a million does.
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-6))).sum())
