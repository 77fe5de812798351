"""int8 weights: one scale a channel.

Source: arXiv:1712.05877, eq. 1 with zero point 0 (symmetric), one scale for each output channel (arXiv:1806.08342,
section 3.1.1).
"""

from __future__ import annotations

import numpy as np

from modelmill.core.errors import ModelError

FULL_RANGE = 127
REDUCED_RANGE = 63
"""Seven bits: without VNNI the products of u8 and s8 are added in pairs in 16 bits, and eight bits overflow there."""


def quantize_columns(weight: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 of a matrix, a scale for each column.

    Args:
        weight: float32, shape (in_features, out_channels).
        limit: Largest magnitude of the integers, 127 or 63.

    Returns:
        int8, shape (in_features, out_channels), and float32, shape (out_channels,); weight ≈ integers * scale.

    Raises:
        ModelError: A weight is not finite.
    """
    largest = np.abs(weight).max(axis=0)
    if not np.isfinite(largest).all():
        what = f"a matrix of shape {list(weight.shape)} holds weights that are not finite"
        raise ModelError(what, fix="take another checkpoint: such a model answers nonsense")
    # A column of zeros has any scale.
    scale = np.where(largest > 0, largest / limit, 1.0).astype(np.float32)
    return np.clip(np.rint(weight / scale), -limit, limit).astype(np.int8), scale


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 of an embedding table, a scale for each row.

    Args:
        table: float32, shape (tokens, features).

    Returns:
        int8, shape (tokens, features), and float32, shape (tokens, 1); table ≈ integers * scale.

    Raises:
        ModelError: A value is not finite.
    """
    integers, scale = quantize_columns(table.T, FULL_RANGE)
    return integers.T, scale[:, None]
