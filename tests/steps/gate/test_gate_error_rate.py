"""The error rate that the gate promises, and its power: simulated, exact, and as the README tells them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multinomial

from gate_readme import is_in_readme
from modelmill.measuring.noninferiority import tango_bounds
from modelmill.steps.gate.operating import drifted, exact_rates, simulated_rates

MARGIN = 0.01
CONFIDENCE = 0.95
ROWS = (50, 200, 1000, 3080)
# Share of rows that only the candidate gets right; that of lost rows is one point more: the truth is at the margin.
PATTERNS = {"one-sided": 0.0, "very sparse": 0.001, "sparse": 0.005, "usual": 0.02, "frequent": 0.1, "noisy": 0.3}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("gained", PATTERNS.values(), ids=PATTERNS)
def test_a_candidate_at_the_margin_passes_at_most_as_often_as_promised(rows: int, gained: float) -> None:
    evaluations = 5000
    rates = simulated_rates(rows, MARGIN, gained, MARGIN, CONFIDENCE, evaluations)
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / evaluations)
    assert rates.passed <= allowed
    assert rates.failed <= allowed


@pytest.mark.parametrize(
    ("rows", "gained"),
    [(50, 0.0), (50, 0.1), (200, 0.005), (200, 0.02), (200, 0.3), (1000, 0.0), (1000, 0.02), (3080, 0.001)],
)
def test_simulation_and_exact_sum_agree(rows: int, gained: float) -> None:
    exact = exact_rates(rows, MARGIN, gained, MARGIN, CONFIDENCE)
    simulated = simulated_rates(rows, MARGIN, gained, MARGIN, CONFIDENCE, 20_000, seed=1)
    for one, other in ((exact.passed, simulated.passed), (exact.failed, simulated.failed)):
        assert abs(one - other) <= 4 * math.sqrt(max(one * (1 - one), 1e-4) / 20_000)


def test_a_candidate_beyond_the_margin_hardly_ever_passes() -> None:
    assert exact_rates(3080, 0.02, 0.01, MARGIN, CONFIDENCE).passed < 1e-3


def test_one_sided_disagreement_keeps_the_promise_where_the_score_test_alone_does_not() -> None:
    for rows in (268, 270, 300, 450, 750):
        assert exact_rates(rows, MARGIN, 0.0, MARGIN, CONFIDENCE).passed <= 0.05
    # At 270 rows no lost row is just enough for the score test, and that happens to 0.99^270 of such candidates.
    assert float(tango_bounds(0, 0, 270, CONFIDENCE)[1]) <= MARGIN
    assert 0.99**270 == pytest.approx(0.066, abs=5e-4)


def test_sparse_disagreement_is_refused_too_often_by_the_score_test_alone() -> None:
    rows, lost, gained = 200, 0.016, 0.006
    b, c = np.meshgrid(np.arange(40), np.arange(40), indexing="ij")
    chance = multinomial.pmf(np.stack([b, c, rows - b - c], axis=-1), rows, [lost, gained, 1 - lost - gained])
    alone = chance[tango_bounds(b, c, rows, CONFIDENCE)[0] > MARGIN].sum()
    assert alone == pytest.approx(0.073, abs=5e-4)
    assert exact_rates(rows, MARGIN, gained, MARGIN, CONFIDENCE).failed <= 0.05


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_exact_error_rate_is_what_the_readme_says() -> None:
    worst: dict[int, tuple[float, float]] = {}
    for rows in (50, 70, 90, 100, 150, 200, 270, 300, 500, 750, 1000, 3080):
        found = [exact_rates(rows, MARGIN, share, MARGIN, CONFIDENCE) for share in (
            0.0, 1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 6e-3, 8e-3, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.07, 0.1,
        )]  # fmt: skip
        worst[rows] = (max(item.passed for item in found), max(item.failed for item in found))
    lines = ["| rows | passes a candidate at the margin | fails one |", "| --- | --- | --- |"]
    lines += [f"| {rows:,} | {_percent(passed)} | {_percent(failed)} |" for rows, (passed, failed) in worst.items()]
    assert max(passed for passed, _ in worst.values()) <= 0.0605
    assert max(failed for _, failed in worst.values()) <= 0.0605
    assert all(max(worst[rows]) <= 0.053 for rows in (50, 200, 1000, 3080))
    is_in_readme("error rate", lines)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_power_is_what_the_readme_says() -> None:
    lines = ["| rows | true drop, points | 0.5 % disagree | 1 % | 2 % | 4 % |", "| --- | --- | --- | --- | --- | --- |"]
    for rows in (500, 3000, 10_000):
        for drop in (0.0, 0.005):
            cells = [
                _percent(exact_rates(rows, drop, (share - drop) / 2, MARGIN, CONFIDENCE).passed)
                for share in (0.005, 0.01, 0.02, 0.04)
            ]
            lines.append(f"| {rows:,} | {100 * drop:g} | {' | '.join(cells)} |")
    is_in_readme("power", lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def test_a_reference_ends_the_drift_that_the_champion_alone_allows() -> None:
    given = {"nights": 120, "channels": 100}
    alone = drifted(3000, 0.002, 0.005, MARGIN, None, CONFIDENCE, **given)
    held = drifted(3000, 0.002, 0.005, MARGIN, 0.02, CONFIDENCE, **given)
    assert np.median(alone) > 0.1
    assert np.quantile(held, 0.95) < 0.03


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_drift_is_what_the_readme_says() -> None:
    lines = [
        "| each night loses | champion alone, after 30 nights | 100 | with a reference at 2 points, 30 | 100 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for loss in (0.0005, 0.001, 0.002, 0.005):
        cells = []
        for limit in (None, 0.02):
            for nights in (30, 100):
                found = drifted(3000, loss, 0.005, MARGIN, limit, CONFIDENCE, nights=nights, channels=200)
                middle, most = 100 * np.quantile(found, (0.5, 0.95))
                cells.append(f"{middle:.2f} ({most:.2f})")
        lines.append(f"| {100 * loss:g} points | {' | '.join(cells)} |")
    is_in_readme("drift", lines)
