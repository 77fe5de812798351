"""The pictures of a lane: what was lost against what may be lost, and what was gained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from modelmill.core.evidence import EncoderLatency, Interval, Verdict
from modelmill.reports.drawing import Drawing, Scale
from modelmill.reports.numbers import fixed, interval, points, times


@dataclass(frozen=True)
class Mark:
    """One value with its interval.

    Attributes:
        label: What it is of.
        value: In the axis's unit.
        bounds: Its interval, or None.
        words: The value for people.
        css: ``baseline``, ``unquantized`` or ``candidate``.
    """

    label: str
    value: float
    bounds: Interval | None
    words: str
    css: str


def drop(value: float, bounds: Interval, allowed: float | None, verdict: Verdict, metric: str) -> Markup:
    """The key picture: the drop with its interval against the allowed margin.

    Args:
        value: Points lost by the candidate; negative where it is better.
        bounds: The interval of ``value``.
        allowed: The recipe's margin in points, or None where none was set.
        verdict: Of the check; shapes the interval's look.
        metric: The metric's name.
    """
    scale = Scale.covering([value, *bounds, 0.0, *([] if allowed is None else [1.3 * allowed])], pad=0.08)
    if scale.low == 0:
        scale = Scale.covering([value, *bounds, -0.12 * scale.high, scale.high], pad=0)
    told = f"{points(value)} of {metric} lost, interval {interval(bounds)}"
    told += "" if allowed is None else f", allowed {points(allowed)}"
    picture = Drawing(148, told, css=f"plot drop {verdict}")
    bottom, middle = 108, 66
    if allowed is not None:
        picture.box(scale.at(allowed), 1, 22, bottom - 22, "beyond")
    picture.axis(scale, bottom, f"points of {metric} lost", top=22)
    picture.line(scale.at(0), 22, scale.at(0), middle + 15, "zero")
    if allowed is not None:
        edge = scale.at(allowed)
        picture.line(edge, 6, edge, bottom, "limit")
        before = edge > 0.6
        picture.text(
            edge - 0.01 if before else edge + 0.01,
            14,
            f"allowed {fixed(allowed, 2)}",
            "limit-label",
            anchor="end" if before else "start",
        )
    low, high = (scale.at(bound) for bound in bounds)
    picture.box(low, high, middle - 7, 14, "band", title=told)
    for end in (low, high):
        picture.line(end, middle - 12, end, middle + 12, "cap")
    picture.dot(scale.at(value), middle, "point", radius=6.5, title=told)
    picture.text(scale.at(value), middle - 20, fixed(value, 2), "value")
    picture.text(low, middle + 27, fixed(bounds[0], 2), "bound")
    if abs(high - low) > 0.14:
        picture.text(high, middle + 27, fixed(bounds[1], 2), "bound")
    return picture.markup()


def intervals(
    marks: Sequence[Mark], title: str, *, factor: float = 1.0, limit: float | None = None, limit_words: str = ""
) -> Markup:
    """Values with their intervals, one below the other on one axis.

    Args:
        marks: From top to bottom.
        title: Of the axis.
        factor: What values are multiplied with on the axis (100 for shares in percent).
        limit: A threshold to draw, in the values' unit.
        limit_words: Its label.
    """
    values = [factor * number for mark in marks for number in (mark.value, *(mark.bounds or ()))]
    scale = Scale.covering([*values, *([] if limit is None else [factor * limit])], pad=0.1, count=4)
    height, top = 46, 18 if limit is not None else 0
    bottom = top + height * len(marks) + 4
    picture = Drawing(bottom + 40, "; ".join(f"{mark.label} {mark.words}" for mark in marks))
    picture.axis(scale, bottom, title, top=top)
    if limit is not None:
        at = scale.at(factor * limit)
        picture.line(at, 4, at, bottom, "limit")
        picture.text(
            at + (-0.01 if at > 0.6 else 0.01), 12, limit_words, "limit-label", anchor="end" if at > 0.6 else "start"
        )
    for row, mark in enumerate(marks):
        y = top + height * row
        picture.text(0, y + 14, mark.label, "label", anchor="start")
        picture.text(1, y + 14, mark.words, "words", anchor="end")
        _interval(picture, scale, mark, y + 31, factor)
    return picture.markup()


def _interval(picture: Drawing, scale: Scale, mark: Mark, y: float, factor: float = 1.0) -> None:
    if mark.bounds:
        low, high = (scale.at(factor * bound) for bound in mark.bounds)
        picture.line(low, y, high, y, f"range {mark.css}")
        for end in (low, high):
            picture.line(end, y - 5, end, y + 5, f"range-end {mark.css}")
    x, told = scale.at(factor * mark.value), f"{mark.label}: {mark.words}"
    if mark.css == "unquantized":
        picture.diamond(x, y, f"mark {mark.css}", radius=6, title=told)
    else:
        picture.dot(x, y, f"mark {mark.css}", title=told)


def speedups(cells: Sequence[tuple[str, EncoderLatency]], threshold: float | None, noise: Interval) -> Markup:
    """Every cell's speed-up over the baseline and gain over the unquantized model, with intervals.

    Args:
        cells: (name, cell); the first is the one that ``threshold`` judges.
        threshold: The recipe's ``min_speedup``, or None.
        noise: The baseline timed against itself.
    """
    numbers = [
        number
        for _, cell in cells
        for number in (cell.speedup, *cell.speedup_ci, cell.gain_over_unquantized, *cell.gain_over_unquantized_ci)
    ]
    scale = Scale.covering([0.0, 1.1, *numbers, *noise, *([] if threshold is None else [threshold])])
    height, top = 98, 20
    bottom = top + height * len(cells)
    told = "; ".join(f"{name}: {times(cell.speedup)} over the baseline" for name, cell in cells)
    picture = Drawing(bottom + 40, told)
    picture.box(scale.at(noise[0]), scale.at(noise[1]), top, bottom - top, "noise", title=f"noise {interval(noise)}")
    picture.axis(scale, bottom, "times as fast", top=top)
    picture.line(scale.at(1), top, scale.at(1), bottom, "zero")
    picture.text(scale.at(1), 12, "equal", "limit-label", anchor="end" if (threshold or 0) > 1 else None)
    for row, (name, cell) in enumerate(cells):
        y = top + height * row
        if row == 0 and threshold is not None:
            at = scale.at(threshold)
            picture.line(at, y, at, y + height - 4, "limit")
            side = "start" if at < 0.7 else "end"
            picture.text(at, 12, f"at least {times(threshold)}", "limit-label", anchor=side)
        picture.text(0, y + 16, name, "label", anchor="start")
        for offset, label, css, value, bounds in (
            (16, "over PyTorch eager", "candidate", cell.speedup, cell.speedup_ci),
            (58, "over unquantized", "unquantized", cell.gain_over_unquantized, cell.gain_over_unquantized_ci),
        ):
            words = f"{times(value)} ({interval(bounds)})"
            picture.text(1, y + offset, words, "words", anchor="end")
            _interval(picture, scale, Mark(label, value, bounds, words, css), y + offset + 17)
        picture.text(0, y + 58, "over unquantized", "words", anchor="start")
    return picture.markup()


def bars(marks: Sequence[Mark], *, limit: float | None = None, limit_words: str = "") -> Markup:
    """Lengths from zero, longest over the whole width, with an optional limit to stay below."""
    most = max([1e-300, *(mark.value for mark in marks if math.isfinite(mark.value)), limit or 0.0])
    height, top = 42, 20 if limit is not None else 0
    picture = Drawing(top + height * len(marks), "; ".join(f"{mark.label} {mark.words}" for mark in marks))
    for row, mark in enumerate(marks):
        y = top + height * row + 21
        share = mark.value / most if math.isfinite(mark.value) else 0.0
        picture.box(0, 1, y, 12, "track")
        picture.box(0, max(0.0, share), y, 12, f"fill {mark.css}", title=f"{mark.label}: {mark.words}")
    if limit is not None:
        x = limit / most
        picture.line(x, 4, x, top + height * len(marks) - 4, "limit")
        side = "end" if x > 0.6 else "start"
        picture.text(x + (-0.01 if x > 0.6 else 0.01), 12, limit_words, "limit-label", anchor=side)
    for row, mark in enumerate(marks):
        y = top + height * row + 14
        picture.text(0, y, mark.label, "label", anchor="start")
        picture.text(1, y, mark.words, "words", anchor="end")
    return picture.markup()


def change(value: int, most: int) -> Markup:
    """A bar from the middle: to the right for rows won, to the left for rows lost."""
    picture = Drawing(12, f"{value:+d}", css="plot change")
    picture.line(0.5, 0, 0.5, 12, "zero")
    picture.box(0.5, 0.5 + 0.5 * value / max(most, 1), 2, 8, "fill gained" if value > 0 else "fill lost")
    return picture.markup()


def span(start: float, length: float, whole: float, words: str, css: str, *, cached: bool) -> Markup:
    """A step's time within the run's: ``start`` and ``length`` of ``whole`` seconds."""
    picture = Drawing(14, words, css="plot span")
    picture.box(0, 1, 1, 12, "track")
    left = min(1.0, start / whole) if whole > 0 else 0.0
    right = min(1.0, (start + length) / whole) if whole > 0 else 0.0
    picture.box(left, max(right, left + 0.004), 1, 12, f"fill {css} cached" if cached else f"fill {css}", title=words)
    return picture.markup()
