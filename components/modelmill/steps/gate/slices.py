"""Parts of the evaluation rows judged by themselves: a small loss over all rows can be a ruin of one class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelmill.core.errors import DataError
from modelmill.core.evidence import BY_CLASS, Check, Slice, Slices, Verdict
from modelmill.core.rows import Row
from modelmill.measuring.noninferiority import drop_bounds, harm_p_value, holm
from modelmill.steps.gate.compare import Answers
from modelmill.steps.gate.contract import SlicePolicy
from modelmill.steps.gate.words import listed, percent, points

MAX_THIN = 200
"""Thin slices that evidence keeps."""
MAX_NAMED = 5
"""Slices that a verdict names."""


def names_of(by: str, answers: Answers, rows: Sequence[Row]) -> list[str]:
    """Which slice each row is in.

    Raises:
        DataError: The task has no labels, or a row lacks the column.
    """
    if by == BY_CLASS:
        if not answers.labels:
            what = "slices are by class, and this task has no classes"
            raise DataError(what, where="gate.slices.by", fix="name a column of the evaluation rows, or leave it out")
        return [answers.labels[int(label)] for label in answers.reference]
    missing = next((row for row in rows if row.get(by) is None), None)
    if missing is not None:
        has = ", ".join(sorted(set(missing) - {"id"}))
        what = f"slices are by the column {by!r}, which the evaluation row {missing['id']} lacks: it has {has}"
        fix = f"give every evaluation row the column, or slice by one of {BY_CLASS}, {has}"
        raise DataError(what, where="gate.slices.by", fix=fix)
    return [str(row[by]) for row in rows]


def judge_slices(answers: Answers, names: Sequence[str], by: str, policy: SlicePolicy, confidence: float) -> Slices:
    """Count each slice, and test those of enough rows for a drop beyond what one may lose.

    Args:
        answers: Both models' answers.
        names: The slice of each row.
        by: What the slices are by.
        policy: What a slice may lose, and when it is thin.
        confidence: With which none is refused wrongly, over all slices together.
    """
    found, member = np.unique(np.asarray(names, dtype=object).astype(str), return_inverse=True)
    lost = answers.baseline_right & ~answers.candidate_right
    gained = answers.candidate_right & ~answers.baseline_right
    counted = [
        np.bincount(member, weights=of, minlength=len(found)).astype(int).tolist()
        for of in (np.ones(len(member)), answers.baseline_right, answers.candidate_right, lost, gained)
    ]
    bounds = np.stack(drop_bounds(counted[3], counted[4], counted[0], confidence), axis=1) * 100
    judged: list[Slice] = []
    thin: list[Slice] = []
    for (low, high), name, rows, before, after, losses, gains in zip(
        bounds.tolist(), found.tolist(), *counted, strict=True
    ):
        enough = rows >= policy.min_rows
        item = Slice(
            name=name,
            rows=rows,
            baseline_correct=before,
            candidate_correct=after,
            lost=losses,
            gained=gains,
            drop_points=100 * (losses - gains) / rows,
            drop_points_ci=(low, high) if enough else None,
            p_value=harm_p_value(losses, gains, rows, policy.max_drop_points / 100) if enough else None,
        )
        (judged if enough else thin).append(item)
    corrected = holm([item.p_value or 0.0 for item in judged])
    judged = [
        item.model_copy(update={"p_corrected": p, "harmed": p <= 1 - confidence})
        for item, p in zip(judged, corrected, strict=True)
    ]
    return Slices(
        by=by,
        max_drop_points=policy.max_drop_points,
        min_rows=policy.min_rows,
        confidence=confidence,
        judged=sorted(judged, key=lambda item: (item.p_value or 0.0, -item.drop_points, item.name)),
        thin=sorted(thin, key=lambda item: (-item.rows, item.name))[:MAX_THIN],
        thin_count=len(thin),
    )


def check_slices(slices: Slices) -> Check:
    """Whether a slice's harm is demonstrated. Values of a column stay out of the words, which go where no text may."""
    harmed = [item for item in slices.judged if item.harmed]
    told = harmed[0] if harmed else max(slices.judged, key=lambda item: item.drop_points, default=None)
    of = f"{len(slices.judged):,} slices by {slices.by}"
    thin = ""
    if slices.thin_count:
        few = "1 slice has" if slices.thin_count == 1 else f"{slices.thin_count:,} slices have"
        thin = f" {few} fewer than {slices.min_rows:,} rows and {'is' if slices.thin_count == 1 else 'are'} not judged."
    sure = f"at {percent(slices.confidence)} confidence over all of them (Holm)"
    if harmed and told:
        named = f" ({listed([item.name for item in harmed], MAX_NAMED)})" if slices.by == BY_CLASS else ""
        words = (
            f"{len(harmed):,} of {of} {'is' if len(harmed) == 1 else 'are'} shown to lose more than the "
            f"{slices.max_drop_points:g} points allowed to a slice, {sure}{named}; the clearest loses "
            f"{points(told.drop_points)} ({told.lost:,} lost and {told.gained:,} gained of {told.rows:,} rows)."
        )
    else:
        words = f"None of {of} is shown to lose more than the {slices.max_drop_points:g} points allowed to one, {sure}."
    return Check(
        name="slices",
        verdict=Verdict.FAIL if harmed else Verdict.PASS,
        threshold=slices.max_drop_points,
        value=told.drop_points if told else 0.0,
        interval=told.drop_points_ci if told else None,
        words=words + thin,
    )
