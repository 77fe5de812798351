"""How long every timed call took: one histogram a model, on one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from modelmill.core.evidence import EncoderLatency
from modelmill.reports.drawing import Drawing, Scale
from modelmill.reports.numbers import count, milliseconds

_BINS = 160


@dataclass(frozen=True)
class _Model:
    css: str
    label: str
    p50: float
    p95: float | None
    samples: Sequence[float]


def latency(cell: EncoderLatency) -> Markup:
    """Every model's calls in one cell of the grid, from zero to just beyond the slowest model's 95th percentile.

    Calls beyond the axis are counted in words; without samples, the line from the median to the 95th percentile is
    all there is.
    """
    models = _models(cell)
    scale = Scale.covering([0.0, *(1.12 * (model.p95 or model.p50) for model in models)], pad=0.02)
    height = 66
    bottom = height * len(models)
    told = "; ".join(f"{model.label}: {_words(model)}" for model in models)
    picture = Drawing(bottom + 40, told)
    picture.axis(scale, bottom, "milliseconds a batch")
    for row, model in enumerate(models):
        _draw(picture, scale, model, height * row)
    return picture.markup()


def _models(cell: EncoderLatency) -> list[_Model]:
    unquantized = f"Unquantized, {cell.unquantized}" if cell.unquantized else "Unquantized"
    found = []
    for css, label, p50, p95 in (
        ("baseline", "PyTorch eager", cell.baseline_ms_p50, cell.baseline_ms_p95),
        ("unquantized", unquantized, cell.unquantized_ms_p50, None),
        ("candidate", "Candidate", cell.candidate_ms_p50, cell.candidate_ms_p95),
    ):
        samples = [value for value in cell.samples_ms.get(css, []) if math.isfinite(value)]
        known = p95 if p95 is not None or not samples else float(np.percentile(samples, 95))
        found.append(_Model(css, label, p50, known, samples))
    return found


def _words(model: _Model) -> str:
    tail = "" if model.p95 is None else f", p95 {milliseconds(model.p95)}"
    return f"median {milliseconds(model.p50)}{tail}"


def _draw(picture: Drawing, scale: Scale, model: _Model, y: float) -> None:
    beyond = sum(value > scale.high for value in model.samples)
    label = model.label + (f" ({count(beyond)} of {count(len(model.samples))} calls beyond)" if beyond else "")
    picture.text(0, y + 15, label, "label", anchor="start")
    picture.text(1, y + 15, _words(model), "words", anchor="end")
    top, base = y + 22, y + 58
    if model.samples:
        counts, _ = np.histogram(model.samples, bins=_BINS, range=(scale.low, scale.high))
        picture.area(top, base - top, (counts / max(1, counts.max())).tolist(), f"area {model.css}")
    picture.line(0, base, 1, base, "ground")
    middle = scale.at(model.p50)
    if model.p95 is not None:
        picture.line(middle, base, scale.at(model.p95), base, f"range {model.css}")
        picture.line(scale.at(model.p95), base - 5, scale.at(model.p95), base + 5, f"range-end {model.css}")
    told = f"{model.label}: {_words(model)}"
    if model.css == "unquantized":
        picture.diamond(middle, base, f"mark {model.css}", title=told)
    else:
        picture.dot(middle, base, f"mark {model.css}", radius=4.5, title=told)
