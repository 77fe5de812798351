from __future__ import annotations

import numpy as np
import pytest

from modelmill.core.errors import ModelError
from modelmill.core.progress import SilentBar
from modelmill.graphs import parity


def batch_of(batch_size: int, length: int, padded: bool) -> dict[str, np.ndarray]:
    return {"x": np.full((batch_size, length), 2.0 if padded else 1.0)}


def compare(change: float = 0.0, value: float = 1.0) -> parity.Parity:
    def reference(batch: parity.Values) -> parity.Values:
        return {"y": batch["x"].sum(axis=1) * value}

    def candidate(batch: parity.Values) -> parity.Values:
        return {"y": reference(batch)["y"] + change}

    return parity.compare(reference, candidate, batch_of, tuple(parity.shapes(10)), SilentBar())


def test_the_grid_has_single_rows_single_tokens_and_the_models_maximum() -> None:
    assert list(parity.shapes(512)) == [(b, s) for s in (1, 5, 64, 512) for b in (1, 2, 7)]
    assert list(parity.shapes(10)) == [(b, s) for s in (1, 5, 10) for b in (1, 2, 7)]


def test_a_deviation_is_relative_to_the_largest_output_of_the_grid() -> None:
    # The largest output is that of padded batches of ten: 20.
    assert compare(change=0.2).relative == pytest.approx(0.01)
    assert compare(change=0.2, value=10.0).relative == pytest.approx(0.001)


def test_the_bound_in_a_model_is_rounded_up_to_a_power_of_ten() -> None:
    assert compare(change=0.2).fact()["relative_deviation"] == pytest.approx(0.01)
    assert compare(change=0.07).bound() == {"relative_deviation_at_most": 0.01, "value": "y"}
    assert compare().bound() == {"relative_deviation_at_most": 0.0, "value": "y"}


def test_a_deviation_beyond_the_bound_is_refused_and_one_within_is_not() -> None:
    parity.require(compare(change=0.2), 0.02, "the graph differs")
    with pytest.raises(ModelError, match=r"the graph differs: y deviates by 1\.00e-02 of its scale, 1e-03 is allowed"):
        parity.require(compare(change=0.2), 1e-3, "the graph differs")


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ModelError, match="y holds values that are not finite"):
        compare(change=float("nan"))


def test_another_shape_is_refused() -> None:
    def wide(batch: parity.Values) -> parity.Values:
        return {"y": batch["x"]}

    def narrow(batch: parity.Values) -> parity.Values:
        return {"y": batch["x"][:1]}

    with pytest.raises(ModelError, match=r"y has the shape \[1, 1\] where \[2, 1\] is right"):
        parity.compare(wide, narrow, batch_of, [(2, 1)], SilentBar())
