"""What the templates need to know of a lane, worked out before any HTML is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from modelmill.core.contract import JSON
from modelmill.core.evidence import Check, Difference, Disagreement, EncoderLatency, LaneEvidence, Verdict
from modelmill.reports import distribution, numbers, plots
from modelmill.reports.plain import cut

TEXT_LENGTH = 400
"""Characters of a row's text that are shown: 200 rows of 512 tokens would be half a megabyte."""
MATRIX_LABELS = 10
MATRIX_SHARE = 0.2
"""Of all changed answers, below which a matrix of ten labels is mostly empty and the list says more."""
CHANGE_FLOOR = 5
"""Rows that a full bar of a class's change stands for at least: one row more or less is not a large thing."""

WORDS = {Verdict.PASS: "Passed", Verdict.FAIL: "Failed", Verdict.INCONCLUSIVE: "Inconclusive"}


@dataclass(frozen=True)
class CheckRow:
    """One threshold in words."""

    check: Check
    title: str
    demanded: str
    found: str
    interval: str


@dataclass(frozen=True)
class Called:
    """A disagreement, and what it means for the candidate: ``lost``, ``gained`` or ``other`` (both wrong)."""

    row: Disagreement
    kind: str
    text: str


@dataclass(frozen=True)
class Matrix:
    """Rows that the models call differently: what the baseline said (rows), what the candidate said (columns)."""

    labels: list[str]
    cells: list[list[Counter[str]]]
    shown: int
    whole: int


@dataclass(frozen=True)
class Lane:
    """A lane as the page shows it."""

    anchor: str
    evidence: LaneEvidence
    word: str
    checks: list[CheckRow]
    drop: Markup
    metric: Markup
    speedups: Markup | None
    differences: list[str]
    latency: list[tuple[str, Markup]]
    throughput: Markup | None
    one_text: Markup | None
    size: Markup
    classes: list[tuple[str, int, int, int, int, Markup]]
    confusions: list[tuple[str, str, str, int, str]]
    matrix: Matrix | None
    disagreements: list[Called]
    facts: list[tuple[str, str]]


def lane(evidence: LaneEvidence, anchor: str) -> Lane:
    """Work out what the page shows of a lane."""
    measured = evidence.measurements
    thresholds = {check.name: check for check in evidence.checks}
    margin = thresholds.get("max_drop_points")
    speed, size, metric = (thresholds.get(name) for name in ("min_speedup", "max_size_ratio", "min_metric"))
    cells = [(f"batch {cell.batch_size} × {cell.sequence_length} tokens", cell) for cell in measured.latency]
    return Lane(
        anchor=anchor,
        evidence=evidence,
        word=WORDS[evidence.verdict],
        checks=[_check(check, evidence.metric.name) for check in evidence.checks],
        drop=plots.drop(
            evidence.drop_points,
            evidence.drop_points_ci,
            margin.threshold if margin else None,
            margin.verdict if margin else evidence.verdict,
            evidence.metric.name,
        ),
        metric=plots.intervals(
            [
                _share("Baseline: PyTorch float32", evidence.baseline, evidence.baseline_ci, "baseline"),
                *[
                    _share(f"{opponent.value.capitalize()}: served", other.value, other.value_ci, "unquantized")
                    for opponent, other in evidence.against.items()
                    if other.value is not None and other.value_ci is not None
                ],
                _share(f"Candidate: {evidence.precision}", evidence.candidate, evidence.candidate_ci, "candidate"),
            ],
            f"{evidence.metric.name}, percent",
            factor=100,
            limit=metric.threshold if metric else None,
            limit_words=f"at least {numbers.percent(metric.threshold)}" if metric else "",
        ),
        speedups=plots.speedups(cells, speed.threshold if speed else None, measured.noise_ratio_ci) if cells else None,
        differences=[words for name, cell in cells for words in _differences(name, cell)],
        latency=[(name, distribution.latency(cell)) for name, cell in cells],
        throughput=_throughput(evidence),
        one_text=_one_text(evidence),
        size=plots.bars(
            [
                _bytes("Checkpoint", measured.checkpoint_bytes, "baseline"),
                _bytes(f"Candidate, {numbers.fixed(measured.size_ratio, 3)} of it", measured.size_bytes, "candidate"),
            ],
            limit=size.threshold * measured.checkpoint_bytes if size else None,
            limit_words=f"at most {numbers.fixed(size.threshold, 3)}" if size else "",
        ),
        classes=_classes(evidence),
        confusions=[
            (row.reference, row.baseline, row.candidate, row.rows, _kind(row.reference, row.baseline, row.candidate))
            for row in evidence.confusions
        ],
        matrix=matrix(evidence),
        disagreements=[
            Called(row, _kind(row.reference, row.baseline, row.candidate), cut(row.text or "", TEXT_LENGTH))
            for row in evidence.disagreements
        ],
        facts=list(flatten(evidence.model_facts)),
    )


def _share(label: str, value: float, bounds: tuple[float, float], css: str) -> plots.Mark:
    words = f"{numbers.percent(value)} ({numbers.interval(bounds, factor=100)})"
    return plots.Mark(label, value, bounds, words, css)


def _bytes(label: str, value: int, css: str) -> plots.Mark:
    return plots.Mark(label, value, None, numbers.size(value), css)


def _differences(name: str, cell: EncoderLatency) -> list[str]:
    """What the candidate is not faster than in a cell, in words."""
    found = []
    for difference, other, noise in (
        (cell.speedup_difference, "PyTorch eager", cell.noise_ratio_ci),
        (cell.gain_difference, "the fastest float32 model", cell.noise_ratio_ci),
    ):
        if difference is Difference.SLOWER:
            found.append(f"At {name} the candidate is slower than {other}.")
        elif difference is Difference.WITHIN_NOISE:
            band = f" ({numbers.interval(noise, 3)})" if noise else ""
            found.append(f"At {name} the candidate differs from {other} by no more than noise{band}.")
    return found


def _throughput(evidence: LaneEvidence) -> Markup | None:
    found = evidence.measurements.throughput
    if found is None:
        return None
    return plots.bars(
        [
            plots.Mark(label, value, None, f"{numbers.significant(value)} texts/s", css)
            for label, value, css in (
                ("PyTorch eager", found.baseline_texts_per_second, "baseline"),
                ("Unquantized", found.unquantized_texts_per_second, "unquantized"),
                ("Candidate", found.candidate_texts_per_second, "candidate"),
            )
        ]
    )


def _one_text(evidence: LaneEvidence) -> Markup | None:
    found = evidence.measurements.one_text
    if found is None:
        return None
    rows = [
        ("PyTorch eager", "baseline", found.baseline_ms_p50, found.baseline_ms_p99),
        (f"Unquantized, {found.unquantized}", "unquantized", found.unquantized_ms_p50, found.unquantized_ms_p99),
        ("Candidate", "candidate", found.candidate_ms_p50, found.candidate_ms_p99),
    ]
    return plots.bars(
        [
            plots.Mark(label, p50, None, f"{numbers.milliseconds(p50)}, p99 {numbers.milliseconds(p99)}", css)
            for label, css, p50, p99 in rows
        ]
    )


@dataclass(frozen=True)
class _Wording:
    """How a check's numbers are written: its title, a value, and an interval's decimals and factor."""

    title: str
    value: Callable[[float], str]
    decimals: int = 2
    factor: float = 1.0


_CHECKS = {
    "max_drop_points": _Wording("{metric} lost", numbers.points),
    "max_drop_vs_champion_points": _Wording("{metric} lost against the champion", numbers.points),
    "max_drop_vs_reference_points": _Wording("{metric} lost against the reference", numbers.points),
    "min_metric": _Wording("{metric} reached", numbers.percent, factor=100),
    "min_speedup": _Wording("Speed-up over PyTorch eager", numbers.times),
    "min_gain_over_unquantized": _Wording("Speed-up over the fastest float32 model", numbers.times),
    "max_peak_rss_bytes": _Wording("Peak memory", numbers.size, 0),
    "max_load_seconds": _Wording("From file to first answer", numbers.seconds, 3),
    "max_cost_per_million_texts": _Wording("Cost of a million texts", numbers.significant, 3),
    "max_batch_flips": _Wording("Predictions that flip with their neighbours", numbers.count, 0),
    "smoke": _Wording("Predictions in a server that are not the evaluation's", numbers.count, 0),
    "max_served_p95_ratio": _Wording("Time in a server over that in one process, 95th percentiles", numbers.times),
    "max_leaked_share": _Wording("Rows that also chose the model", numbers.percent, factor=100),
    "max_class_shift": _Wording("Classes away from the training rows'", lambda value: numbers.fixed(value, 3), 3),
    "max_class_shift_vs_published": _Wording(
        "Classes away from those of what is served", lambda value: numbers.fixed(value, 3), 3
    ),
    "max_size_ratio": _Wording("Size over the checkpoint's", lambda value: numbers.fixed(value, 3), 3),
    "slices": _Wording("Right rows lost in one slice", numbers.points),
    "min_units": _Wording("Units judged", numbers.count, 0),
    "min_rows": _Wording("Rows judged", numbers.count, 0),
}


def _check(check: Check, metric: str) -> CheckRow:
    wording = _CHECKS.get(check.name, _Wording(check.name.replace("_", " "), numbers.significant))
    side = {"max": "at most ", "min": "at least ", "slices": "at most ", "smoke": "at most "}.get(
        check.name.partition("_")[0], ""
    )
    return CheckRow(
        check,
        wording.title.replace("{metric}", metric[:1].upper() + metric[1:]),
        side + wording.value(check.threshold),
        numbers.DASH if check.value is None else wording.value(check.value),
        numbers.interval(check.interval, wording.decimals, factor=wording.factor) if check.interval else numbers.DASH,
    )


def _classes(evidence: LaneEvidence) -> list[tuple[str, int, int, int, int, Markup]]:
    changes = [item.candidate_correct - item.baseline_correct for item in evidence.classes]
    most = max([CHANGE_FLOOR, *(abs(change) for change in changes)])
    return [
        (item.label, item.rows, item.baseline_correct, item.candidate_correct, change, plots.change(change, most))
        for item, change in zip(evidence.classes, changes, strict=True)
    ]


def _kind(reference: str, baseline: str, candidate: str) -> str:
    return "lost" if reference == baseline else "gained" if reference == candidate else "other"


def matrix(evidence: LaneEvidence) -> Matrix | None:
    """The labels of the heaviest changes; None where they are too scattered for a picture to say anything."""
    pairs: Counter[tuple[str, str]] = Counter()
    for item in evidence.confusions:
        pairs[item.baseline, item.candidate] += item.rows
    labels: list[str] = []
    for pair, _ in sorted(pairs.items(), key=lambda item: (-item[1], item[0])):
        new = [label for label in pair if label not in labels]
        if len(labels) + len(new) <= MATRIX_LABELS:
            labels += new
    place = {label: index for index, label in enumerate(labels)}
    cells: list[list[Counter[str]]] = [[Counter() for _ in labels] for _ in labels]
    shown = 0
    for item in evidence.confusions:
        if item.baseline in place and item.candidate in place:
            kind = _kind(item.reference, item.baseline, item.candidate)
            cells[place[item.baseline]][place[item.candidate]][kind] += item.rows
            shown += item.rows
    whole = sum(pairs.values())
    return Matrix(labels, cells, shown, whole) if shown >= MATRIX_SHARE * whole and shown > 1 else None


def flatten(facts: Mapping[str, JSON], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as (dotted name, words), in the order of their names."""
    found: list[tuple[str, str]] = []
    for name in sorted(facts):
        value = facts[name]
        if isinstance(value, dict) and value:
            found += flatten(value, f"{prefix}{name}.")
        elif isinstance(value, bool):
            found.append((prefix + name, "yes" if value else "no"))
        elif isinstance(value, float):
            found.append((prefix + name, numbers.significant(value)))
        elif isinstance(value, int):
            found.append((prefix + name, numbers.count(value)))
        else:
            words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
            found.append((prefix + name, cut(words, TEXT_LENGTH)))
    return found
