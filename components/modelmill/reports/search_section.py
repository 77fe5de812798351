"""What the templates need to know of a lane's search for the fastest candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from modelmill.core.evidence import Searched, Tried
from modelmill.reports.drawing import Drawing, Scale
from modelmill.reports.numbers import fixed, size, times

SMALLEST, LARGEST = 4.0, 9.0
"""Radii of dots in pixels: the smallest and the largest model's."""
HEIGHT, TOP = 220, 24


@dataclass(frozen=True)
class SearchSection:
    """A lane's search as the page shows it.

    Attributes:
        anchor: For links.
        target: The lane.
        rows: All candidates, in the order of their first look.
        picture: Accuracy against speed; None where fewer than two candidates were judged.
        reason: Why the chosen one.
        notes: What a reader must know.
        sizes: Of the smallest and the largest judged candidate, in bytes; None without a picture.
    """

    anchor: str
    target: str
    rows: Sequence[Tried]
    picture: Markup | None
    reason: str
    notes: Sequence[str]
    sizes: tuple[int, int] | None


@dataclass(frozen=True)
class Point:
    """A judged candidate.

    Attributes:
        name: Its name.
        gain: How many times as fast as the unquantized model it is.
        lost: Points of accuracy on the tune rows.
        size_bytes: Of its graphs.
        chosen: Whether it is the one.
    """

    name: str
    gain: float
    lost: float
    size_bytes: int
    chosen: bool

    def beats(self, other: Point) -> bool:
        """Whether it is as fast, as accurate and as small, and better in one."""
        ahead = self.gain - other.gain, other.lost - self.lost, other.size_bytes - self.size_bytes
        return min(ahead) >= 0 and max(ahead) > 0


def sections(searches: Mapping[str, Searched]) -> list[SearchSection]:
    """A section for each lane that was searched."""
    found = []
    for index, (target, search) in enumerate(sorted(searches.items()), 1):
        judged = points_of(search.tried)
        picture = _picture(judged) if len(judged) > 1 else None
        sizes = [point.size_bytes for point in judged]
        found.append(
            SearchSection(
                anchor=f"search-{index}",
                target=target,
                rows=search.tried,
                picture=picture,
                reason=search.reason,
                notes=search.notes,
                sizes=(min(sizes), max(sizes)) if picture else None,
            )
        )
    return found


def points_of(rows: Sequence[Tried]) -> list[Point]:
    """The candidates whose accuracy and speed are both known."""
    return [
        Point(row.name, row.gain, row.drop_points, row.size_bytes, row.chosen)
        for row in rows
        if row.gain is not None and row.drop_points is not None and row.size_bytes is not None
    ]


def unbeaten(judged: Sequence[Point]) -> list[Point]:
    """The Pareto front: the candidates that no other beats."""
    return [point for point in judged if not any(other.beats(point) for other in judged)]


def _picture(judged: Sequence[Point]) -> Markup:
    speeds = Scale.covering([1.0, *(point.gain for point in judged)])
    lost = Scale.covering([0.0, *(point.lost for point in judged)])
    smallest = min(point.size_bytes for point in judged)
    spread = max(point.size_bytes for point in judged) - smallest or 1
    best = unbeaten(judged)
    told = "; ".join(map(_told, best))
    picture = Drawing(TOP + HEIGHT + 40, f"points lost against speed of {len(judged)} candidates; the best: {told}")
    bottom = TOP + HEIGHT
    picture.text(0, 14, "points lost on the tune rows", "title", anchor="start")
    for tick in lost.ticks:
        y = TOP + HEIGHT * lost.at(tick)
        picture.line(0, y, 1, y, "grid")
        picture.text(0, y - 3, lost.words(tick), "tick", anchor="start")
    picture.axis(speeds, bottom, "times as fast as unquantized", top=TOP)
    # The chosen one lies above the others.
    for point in sorted(judged, key=lambda item: item.chosen):
        radius = SMALLEST + (LARGEST - SMALLEST) * (point.size_bytes - smallest) / spread
        css = "candidate" if point.chosen else "unquantized" if point in best else "baseline"
        x, y = speeds.at(point.gain), TOP + HEIGHT * lost.at(point.lost)
        picture.dot(x, y, css, radius=radius, title=_told(point))
        if point.chosen:
            picture.text(x, y - radius - 5, point.name, "words")
    return picture.markup()


def _told(point: Point) -> str:
    return f"{point.name}: {times(point.gain)}, {fixed(point.lost, 2)} points lost, {size(point.size_bytes)}"
