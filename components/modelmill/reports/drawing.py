"""SVG that is as wide as the page lets it be: x in shares of the width, y in pixels, text of one size everywhere.

A ``viewBox`` would shrink letters with the picture: at 360 px wide they could not be read. So the horizontal
coordinates are percentages, which lines, rectangles, circles and text take, and only curves lie in a nested,
stretched coordinate system. Colours are CSS classes, so that light, dark and print have their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

from modelmill.reports.numbers import fixed
from modelmill.reports.plain import plain

_FROM_ZERO = frozenset({"x", "y", "x1", "y1", "x2", "y2"})
"""What SVG takes to be 0 where it is not told."""


@dataclass(frozen=True)
class Scale:
    """A linear axis from ``low`` to ``high``, with ticks at round numbers inside."""

    low: float
    high: float
    ticks: tuple[float, ...]
    decimals: int

    @classmethod
    def covering(cls, values: Iterable[float], *, pad: float = 0.06, count: int = 5) -> Scale:
        """The axis that shows all finite ``values`` with ``pad`` of its range to spare beyond each end but zero.

        No finite value gives 0 to 1; equal values are given room around them.
        """
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        if high - low <= 1e-12 * max(abs(low), abs(high)):
            room = abs(high) * 0.1 or 1.0
            low, high = low - room, high + room
        span = high - low
        low, high = (low - pad * span if low != 0 else low), (high + pad * span if high != 0 else high)
        step = _round_step((high - low) / count)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        if not math.isclose(step, round(step, decimals), rel_tol=1e-6):
            decimals += 1
        return cls(low, high, tuple(index * step for index in range(first, last + 1)), decimals)

    def at(self, value: float) -> float:
        """Where ``value`` lies, 0 to 1; beyond an end is at the end, and what is no number at 0."""
        if not math.isfinite(value):
            return 0.0 if math.isnan(value) or value < 0 else 1.0
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def words(self, tick: float) -> str:
        """A tick's label."""
        return fixed(tick, self.decimals)


def _round_step(about: float) -> float:
    power = 10.0 ** math.floor(math.log10(about))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= about * (1 - 1e-9))


class Drawing:
    """An SVG picture being made, as wide as its place. ``label`` says in words what it shows."""

    def __init__(self, height: float, label: str, *, css: str = "plot") -> None:
        self.height = height
        self._root = ElementTree.Element(
            "svg", {"class": css, "role": "img", "aria-label": plain(label), "height": _number(height)}
        )

    def markup(self) -> Markup:
        """The picture as HTML; all text in it is escaped."""
        return Markup(ElementTree.tostring(self._root, encoding="unicode"))  # ElementTree has escaped it

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """A straight line."""
        self._add("line", css, x1=_share(x1), y1=_number(y1), x2=_share(x2), y2=_number(y2))

    def box(self, x1: float, x2: float, y: float, height: float, css: str, *, title: str = "") -> None:
        """A rectangle from ``x1`` to ``x2``."""
        left, right = sorted((x1, x2))
        shape = self._add("rect", css, x=_share(left), y=_number(y), width=_share(right - left), height=_number(height))
        _title(shape, title)

    def dot(self, x: float, y: float, css: str, *, radius: float = 5, title: str = "") -> None:
        """A circle of ``radius`` pixels."""
        _title(self._add("circle", css, cx=_share(x), cy=_number(y), r=_number(radius)), title)

    def diamond(self, x: float, y: float, css: str, *, radius: float = 5, title: str = "") -> None:
        """A square on its corner."""
        outer = self._add("svg", "at", x=_share(x), y=_number(y), width="1", height="1")
        r = _number(radius)
        shape = ElementTree.SubElement(outer, "path", {"class": css, "d": f"M0-{r}L{r} 0L0 {r}L-{r} 0Z"})
        _title(shape, title)

    def text(self, x: float, y: float, words: str, css: str = "", *, anchor: str | None = None) -> None:
        """A line of text; without ``anchor`` it is centred, and near an edge it stays inside."""
        side = anchor or ("start" if x < 0.12 else "end" if x > 0.88 else "middle")
        item = self._add("text", css, x=_share(x), y=_number(y), **{"text-anchor": side})
        item.text = plain(words)

    def area(self, y: float, height: float, heights: Sequence[float], css: str) -> None:
        """A filled step curve over the whole width that stands on ``y + height``.

        Args:
            y: Top, pixels.
            height: Of a step of 1, pixels.
            heights: 0 to 1, of equally wide steps.
            css: Classes.
        """
        width = len(heights)
        outer = self._add(
            "svg",
            "stretch",
            x="0",
            y=_number(y),
            width="100%",
            height=_number(height),
            viewBox=f"0 0 {width} 100",
            preserveAspectRatio="none",
        )
        path, level = "M0 100", 0
        for index, share in enumerate(heights):
            here = round(100 * share) if math.isfinite(share) else 0
            if here != level:
                path += f"H{index}V{100 - here}"
                level = here
        path += f"H{width}V100Z"
        ElementTree.SubElement(outer, "path", {"class": css, "d": path})

    def axis(self, scale: Scale, y: float, title: str, *, top: float = 0) -> None:
        """Ticks, their labels and a title at ``y``, with grid lines up to ``top``; takes 38 pixels below ``y``."""
        self.line(0, y, 1, y, "axis")
        for tick in scale.ticks:
            x = scale.at(tick)
            self.line(x, top, x, y, "grid")
            side = "start" if x < 0.02 else "end" if x > 0.98 else "middle"
            self.text(x, y + 15, scale.words(tick), "tick", anchor=side)
        self.text(0, y + 34, title, "title", anchor="start")

    def _add(self, tag: str, css: str, **attributes: str) -> ElementTree.Element:
        # A page has hundreds of pictures: what SVG takes for granted is left out.
        told = {name: value for name, value in attributes.items() if name not in _FROM_ZERO or value not in {"0", "0%"}}
        return ElementTree.SubElement(self._root, tag, {**({"class": css} if css else {}), **told})


def _title(shape: ElementTree.Element, words: str) -> None:
    if words:
        ElementTree.SubElement(shape, "title").text = plain(words)


def _share(x: float) -> str:
    return f"{100 * x:.2f}".rstrip("0").rstrip(".") + "%"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
