"""The paired interval: against published examples, against brute force, and at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom

from modelmill.measuring.noninferiority import (
    FEASIBLE_ROWS,
    drop_bounds,
    rows_to_settle_drop,
    rows_to_settle_share,
    score,
    share_bounds,
    tango_bounds,
)

Z95 = 1.6448536269514722

# lost, gained, rows, confidence of each bound, published bounds, published decimals.
PUBLISHED = [
    pytest.param(0, 1, 44, 0.95, (-0.096, 0.037), 3, id="Tango 1998, contact lenses, 90 %"),
    pytest.param(9, 3, 32, 0.975, (-0.027, 0.390), 3, id="Tango 1998, cross-over trial, 95 %"),
    pytest.param(16, 8, 86, 0.975, (-0.020, 0.207), 3, id="Agresti and Min 2005, 95 %"),
    pytest.param(1, 7, 21, 0.975, (-0.517, -0.026), 3, id="Fagerland et al. 2014, Bentur 2009, 95 %"),
    pytest.param(6, 16, 161, 0.975, (-0.1240, -0.0054), 4, id="Fagerland et al. 2017, Cavo 2012, 95 %"),
]


@pytest.mark.parametrize(("lost", "gained", "rows", "confidence", "published", "decimals"), PUBLISHED)
def test_tango_bounds_are_the_published_ones(
    lost: int, gained: int, rows: int, confidence: float, published: tuple[float, float], decimals: int
) -> None:
    lower, upper = tango_bounds(lost, gained, rows, confidence)
    assert (round(float(lower), decimals), round(float(upper), decimals)) == published


def brute_score(lost: int, gained: int, rows: int, drop: float) -> float:
    """The score statistic with the nuisance rate found by maximising the trinomial likelihood numerically."""

    def minus_likelihood(rate: float) -> float:
        p_lost, p_same = rate + drop, 1 - 2 * rate - drop
        terms = ((lost, p_lost), (gained, rate), (rows - lost - gained, p_same))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    low, high = max(0.0, -drop), (1 - drop) / 2
    found = minimize_scalar(minus_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    rate = min((low, high, float(found.x)), key=minus_likelihood)
    variance = rows * (2 * rate + drop - drop**2)
    return (lost - gained - rows * drop) / math.sqrt(variance) if variance > 0 else 0.0


@pytest.mark.parametrize("rows", [20, 50, 300, 3080])
def test_score_agrees_with_a_numerical_maximum_of_the_likelihood(rows: int) -> None:
    generator = np.random.default_rng(rows)
    for _ in range(60):
        lost, gained = (int(item) for item in generator.integers(0, rows // 3, 2))
        drop = float(generator.uniform(-0.9, 0.9))
        assert float(score(lost, gained, rows, drop)) == pytest.approx(brute_score(lost, gained, rows, drop), rel=1e-4)


@pytest.mark.parametrize(("lost", "gained", "rows"), [(3, 1, 50), (0, 4, 50), (12, 9, 200), (40, 55, 3080), (0, 0, 50)])
def test_bounds_are_where_a_brute_force_inversion_changes_its_mind(lost: int, gained: int, rows: int) -> None:
    lower, upper = tango_bounds(lost, gained, rows, 0.95)
    grid = np.linspace(-0.4, 0.4, 1601)
    kept = [drop for drop in grid if abs(brute_score(lost, gained, rows, drop)) < Z95]
    step = grid[1] - grid[0]
    assert kept[0] - step <= lower <= kept[0] + 1e-9
    assert kept[-1] - 1e-9 <= upper <= kept[-1] + step


def test_score_falls_as_the_hypothetical_drop_grows() -> None:
    drops = np.linspace(-0.99, 0.99, 397)
    for rows in (5, 50, 3080):
        for lost, gained in ((0, 0), (1, 0), (0, 1), (3, 2), (rows, 0), (0, rows), (rows // 2, rows // 2)):
            assert (np.diff(score(lost, gained, rows, drops)) < 0).all(), (rows, lost, gained)


def test_zero_disagreement_is_not_zero_uncertainty() -> None:
    lower, upper = drop_bounds(0, 0, 50, 0.95)
    # The rule of three: nothing seen in n rows leaves 1 - 0.05^(1/n), about 3/n.
    assert float(upper) == pytest.approx(1 - 0.05 ** (1 / 50), rel=1e-12)
    assert float(lower) == pytest.approx(-float(upper), rel=1e-12)
    assert float(drop_bounds(0, 0, 298, 0.95)[1]) > 0.01
    assert float(drop_bounds(0, 0, 299, 0.95)[1]) <= 0.01


def test_bounds_hold_the_drop_seen_and_mirror_when_the_models_change_places() -> None:
    generator = np.random.default_rng(0)
    rows = generator.integers(2, 5000, 500)
    lost = (rows * generator.uniform(0, 0.5, 500)).astype(int)
    gained = (rows * generator.uniform(0, 0.5, 500)).astype(int)
    lost[:100], gained[50:150] = 0, 0
    lower, upper = drop_bounds(lost, gained, rows, 0.95)
    seen = (lost - gained) / rows
    assert ((-1 <= lower) & (lower <= seen) & (seen <= upper) & (upper <= 1)).all()
    mirrored_lower, mirrored_upper = drop_bounds(gained, lost, rows, 0.95)
    np.testing.assert_allclose(lower, -mirrored_upper, atol=1e-12)
    np.testing.assert_allclose(upper, -mirrored_lower, atol=1e-12)


def test_bounds_reach_the_ends_when_every_row_goes_one_way() -> None:
    assert float(drop_bounds(7, 0, 7, 0.95)[1]) == 1
    assert float(drop_bounds(0, 7, 7, 0.95)[0]) == -1


def test_bounds_are_wider_than_tangos_only_where_disagreement_goes_one_way() -> None:
    for lost, gained, rows in ((5, 3, 200), (0, 3, 200), (3, 0, 200)):
        lower, upper = drop_bounds(lost, gained, rows, 0.95)
        tango_lower, tango_upper = tango_bounds(lost, gained, rows, 0.95)
        assert lower <= tango_lower
        assert tango_upper <= upper
        assert (lower, upper) == (tango_lower, tango_upper) or 0 in (lost, gained)


def test_share_bounds_are_the_exact_binomial_ones() -> None:
    for correct, rows in ((46, 50), (0, 10), (10, 10), (2834, 3080)):
        lower, upper = share_bounds(correct, rows, 0.95)
        if correct:
            assert binom.sf(correct - 1, rows, lower) == pytest.approx(0.05, rel=1e-6)
        else:
            assert lower == 0
        if correct < rows:
            assert binom.cdf(correct, rows, upper) == pytest.approx(0.05, rel=1e-6)
        else:
            assert upper == 1


def test_rows_to_settle_is_the_least_number_that_decides() -> None:
    assert rows_to_settle_drop(0, 0, 50, 0.01, 0.95) == 299
    total = rows_to_settle_drop(6, 4, 500, 0.01, 0.95)
    assert total is not None
    assert 500 < total < 3000

    def upper(rows: int) -> float:
        return float(drop_bounds(6 * rows / 500, 4 * rows / 500, rows, 0.95)[1])

    assert upper(total) <= 0.01 < upper(total - 1)


def test_rows_to_settle_also_counts_towards_a_refusal() -> None:
    total = rows_to_settle_drop(9, 2, 500, 0.01, 0.95)
    assert total is not None
    assert float(drop_bounds(9 * total / 500, 2 * total / 500, total, 0.95)[0]) > 0.01


def test_no_feasible_number_settles_a_drop_seen_at_the_limit() -> None:
    assert rows_to_settle_drop(10, 5, 500, 0.01, 0.95) is None
    assert rows_to_settle_drop(0, 0, 500, 0.0, 0.95) is None
    assert FEASIBLE_ROWS == 1_000_000


def test_rows_to_settle_a_share() -> None:
    total = rows_to_settle_share(46, 50, 0.9, 0.95)
    assert total is not None
    assert (
        share_bounds(46 * total / 50, total, 0.95)[0] >= 0.9 > share_bounds(46 * (total - 1) / 50, total - 1, 0.95)[0]
    )
    assert rows_to_settle_share(45, 50, 0.9, 0.95) is None
