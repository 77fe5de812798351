"""Axes, numbers and pictures."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

import realistic_evidence
from modelmill.core.evidence import Verdict
from modelmill.reports import distribution, numbers, plots
from modelmill.reports.drawing import Scale

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 10], ["0.0", "2.5", "5.0", "7.5", "10.0"]),
        ([-0.1, 1.3], ["0.0", "0.5", "1.0"]),
        ([0, 0.03], ["0.00", "0.01", "0.02", "0.03"]),
        ([91.2, 93.4], ["91.5", "92.0", "92.5", "93.0", "93.5"]),
        ([0, 25], ["0", "10", "20"]),
        ([1e9, 3e9], ["1,000,000,000", "1,500,000,000", "2,000,000,000", "2,500,000,000", "3,000,000,000"]),
    ],
)
def test_ticks_are_round_numbers_inside_the_axis(values: list[float], ticks: list[str]) -> None:
    scale = Scale.covering(values)
    assert [scale.words(tick) for tick in scale.ticks] == ticks


@pytest.mark.parametrize("values", [[], [NAN], [5, 5], [0, 0], [-3, -3, INF], [1e-12, 1e-12], [1e15], [-1e-9, 1e-9]])
def test_any_values_make_an_axis_with_a_range_and_few_ticks(values: list[float]) -> None:
    scale = Scale.covering(values)
    assert scale.low < scale.high
    assert 1 <= len(scale.ticks) <= 12
    assert all(0 <= scale.at(value) <= 1 for value in [*values, NAN, INF, -INF])
    assert len({scale.words(tick) for tick in scale.ticks}) == len(scale.ticks)


@pytest.mark.parametrize(
    "values", list(itertools.product([0.2, 0.0, NAN, INF], [-0.5, NAN], [0.9, 0.0, INF], [1.0, 0.0, None]))
)
def test_the_drop_is_drawn_for_any_numbers(values: tuple[float, float, float, float | None]) -> None:
    value, low, high, allowed = values
    _well_formed(plots.drop(value, (low, high), allowed, Verdict.FAIL, "accuracy"))


def test_the_drop_is_placed_between_zero_and_the_margin() -> None:
    root = _well_formed(plots.drop(0.2, (-0.1, 0.5), 1.0, Verdict.PASS, "accuracy"))
    at = {
        item.get("class"): float((item.get("cx") or item.get("x1") or "").rstrip("%"))
        for item in root
        if item.get("class") in ("zero", "point", "limit")
    }
    assert at["zero"] < at["point"] < at["limit"]
    share = (at["point"] - at["zero"]) / (at["limit"] - at["zero"])
    assert share == pytest.approx(0.2, abs=0.001)
    beyond = next(item for item in root if item.get("class") == "beyond")
    left, width = (float((beyond.get(name) or "").rstrip("%")) for name in ("x", "width"))
    assert left == pytest.approx(at["limit"], abs=0.01)
    assert left + width == pytest.approx(100, abs=0.02)


def test_latency_counts_the_calls_that_its_axis_leaves_out() -> None:
    cell = realistic_evidence.lane().measurements.latency[0]
    calls = dict(cell.samples_ms, baseline=[*cell.samples_ms["baseline"], 900.0, 950.0])
    words = "".join(_well_formed(distribution.latency(cell.model_copy(update={"samples_ms": calls}))).itertext())
    assert f"2 of {len(calls['baseline'])} calls beyond" in words.replace("(", "")
    assert "calls beyond" not in "".join(_well_formed(distribution.latency(cell)).itertext())


def test_latency_without_samples_shows_median_and_tail() -> None:
    cell = realistic_evidence.lane().measurements.latency[0].model_copy(update={"samples_ms": {}})
    root = _well_formed(distribution.latency(cell))
    assert "area" not in ElementTree.tostring(root, encoding="unicode")
    assert len(re.findall("median", "".join(root.itertext()))) >= 3


def test_bars_of_nothing_are_drawn() -> None:
    for value in (0.0, NAN, INF):
        _well_formed(plots.bars([plots.Mark("a", value, None, "–", "candidate")], limit=0.0, limit_words="none"))
    _well_formed(plots.span(0, 0, 0, "nothing", "shared", cached=True))
    _well_formed(plots.change(0, 0))


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (numbers.fixed(-0.004, 2), "0.00"),
        (numbers.fixed(-1234.5, 1), "−1,234.5"),
        (numbers.fixed(0.3, 1, sign=True), "+0.3"),
        (numbers.fixed(NAN, 1), "–"),
        (numbers.significant(0.0123456), "0.0123"),
        (numbers.significant(31.416), "31.4"),
        (numbers.significant(182400), "182,400"),
        (numbers.significant(3.1e-7), "3.10e−07"),
        (numbers.percent(0.92135), "92.14\u00a0%"),
        (numbers.milliseconds(INF), "–"),
        (numbers.times(2.614), "2.61×"),
        (numbers.times(302.3), "302×"),
        (numbers.seconds(0.184), "0.18\u00a0s"),
        (numbers.seconds(184.2), "3\u00a0min 4\u00a0s"),
        (numbers.seconds(7260), "2\u00a0h 1\u00a0min"),
        (numbers.size(23_540_112), "23.5\u00a0MB"),
        (numbers.size(512), "512\u00a0bytes"),
        (numbers.interval((-0.001, 0.005), factor=100), "−0.10 to 0.50"),
    ],
)
def test_numbers_are_written_for_people(written: str, words: str) -> None:
    assert written == words


def _well_formed(picture: str) -> ElementTree.Element:
    root = ElementTree.fromstring(picture)
    for item in root.iter():
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"):
            value = item.get(name)
            assert value is None or re.fullmatch(r"-?\d+(\.\d+)?%?", value), (name, value)
        assert not (item.get("width") or "").startswith("-")
    return root
