"""What was made from what: arcs beside the list of steps."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from markupsafe import Markup

from modelmill.reports.view import Edge, StepRow

ROW = 46
"""Pixels a step takes; the style sheet's list has the same."""
_DOTS = 90
"""Where the dots stand, percent of the width."""


def arcs(steps: Sequence[StepRow], edges: Sequence[Edge], lanes: Sequence[str]) -> Markup:
    """A dot for each step, and an arc for each pair of steps between which an artifact went.

    Args:
        steps: From top to bottom.
        edges: Those without a source are not drawn.
        lanes: Targets; the place decides the colour.
    """
    height = str(ROW * len(steps))
    root = ElementTree.Element("svg", {"class": "arcs", "aria-hidden": "true", "height": height})
    stretched = {"width": "100%", "height": height, "viewBox": f"0 0 100 {height}", "preserveAspectRatio": "none"}
    curves = ElementTree.SubElement(root, "svg", stretched)
    pairs = sorted({(edge.source, edge.sink) for edge in edges if edge.source is not None})
    longest = max([1, *(sink - source for source, sink in pairs)])
    for source, sink in pairs:
        top, end = ROW * source + ROW // 2, ROW * sink + ROW // 2
        reach = _DOTS - 14 - (_DOTS - 18) * ((sink - source - 1) / longest) ** 0.6
        path = f"M{_DOTS} {top}C{reach:.0f} {top} {reach:.0f} {end} {_DOTS} {end}"
        ElementTree.SubElement(curves, "path", {"class": f"arc {lane_class(steps[sink].target, lanes)}", "d": path})
    for index, step in enumerate(steps):
        place = {"cx": f"{_DOTS}%", "cy": str(ROW * index + ROW // 2), "r": "5"}
        ElementTree.SubElement(root, "circle", {"class": f"node {lane_class(step.target, lanes)}", **place})
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # ElementTree has escaped it


def lane_class(target: str | None, lanes: Sequence[str]) -> str:
    """The colour class of a lane; ``shared`` for a step of all."""
    return f"lane-{lanes.index(target) % 4}" if target in lanes else "shared"
