"""The checks of the metric, each with its verdict in words, and the verdict over all checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelmill.core.evidence import Check, Verdict
from modelmill.steps.gate.contract import Policy
from modelmill.steps.gate.noninferiority import (
    FEASIBLE_ROWS,
    drop_bounds,
    rows_to_settle_drop,
    rows_to_settle_share,
    share_bounds,
)
from modelmill.steps.gate.words import percent, points

_ORDER = {Verdict.FAIL: 0, Verdict.INCONCLUSIVE: 1, Verdict.PASS: 2}


@dataclass(frozen=True)
class Paired:
    """How two models answered the same rows.

    Attributes:
        metric: Name of the share that is judged: ``accuracy``.
        rows: Rows compared.
        lost: Rows that only the baseline gets right.
        gained: Rows that only the candidate gets right.
        candidate_correct: Rows that the candidate gets right.
    """

    metric: str
    rows: int
    lost: int
    gained: int
    candidate_correct: int

    @property
    def drop_points(self) -> float:
        """Baseline minus candidate, in points."""
        return 100 * (self.lost - self.gained) / self.rows


def method(confidence: float) -> str:
    """The paired method in words, with its sources and what its bounds mean."""
    return (
        "Paired non-inferiority by Tango's score interval for the difference of paired proportions (Statistics in "
        "Medicine 17, 1998, 891–908), widened to the exact binomial bounds (Clopper and Pearson, 1934) where all "
        f"disagreement goes one way. Each bound is one-sided at {percent(confidence)} confidence and decides by "
        f"itself; the interval they make is two-sided at {percent(2 * confidence - 1)}. Intervals of a single share "
        "are Clopper–Pearson's, at the same confidence."
    )


def check_rows(paired: Paired, policy: Policy) -> Check:
    """Whether there are rows enough to say anything about the metric."""
    enough = paired.rows >= policy.min_rows
    words = (
        f"{paired.rows:,} evaluation rows, of at least {policy.min_rows:,}."
        if enough
        else f"Only {paired.rows:,} evaluation rows, where {policy.min_rows:,} are the least for a verdict: "
        f"{policy.min_rows - paired.rows:,} more are needed."
    )
    return Check(
        name="min_rows",
        verdict=Verdict.PASS if enough else Verdict.INCONCLUSIVE,
        threshold=policy.min_rows,
        value=paired.rows,
        words=words,
        rows_to_settle=None if enough else policy.min_rows,
    )


def check_drop(paired: Paired, policy: Policy) -> Check:
    """Paired non-inferiority: passes and fails only on what is demonstrated at the policy's confidence."""
    lower, upper = (
        100 * float(bound) for bound in drop_bounds(paired.lost, paired.gained, paired.rows, policy.confidence)
    )
    limit, sure = policy.max_drop_points, percent(policy.confidence)
    settle = None
    if paired.rows < policy.min_rows:
        verdict = Verdict.INCONCLUSIVE
        words = f"The drop of {paired.metric} is not judged on {paired.rows:,} rows."
    elif upper <= limit:
        verdict = Verdict.PASS
        words = (
            f"The drop of {paired.metric} is at most {points(upper)} points at {sure} confidence, within the "
            f"{limit:g} allowed ({_seen(paired)})."
        )
    elif lower > limit:
        verdict = Verdict.FAIL
        words = (
            f"The drop of {paired.metric} is at least {points(lower)} points at {sure} confidence, more than the "
            f"{limit:g} allowed ({_seen(paired)})."
        )
    else:
        verdict = Verdict.INCONCLUSIVE
        settle = rows_to_settle_drop(paired.lost, paired.gained, paired.rows, limit / 100, policy.confidence)
        words = (
            f"The drop of {paired.metric} lies between {points(lower)} and {points(upper)} points at {sure} "
            f"confidence each way, and {limit:g} is allowed: {paired.rows:,} rows cannot tell ({_seen(paired)}). "
            f"{_more(paired.rows, settle, 'the disagreement seen here')}"
        )
    return Check(
        name="max_drop_points",
        verdict=verdict,
        threshold=limit,
        value=paired.drop_points,
        interval=(lower, upper),
        words=words,
        rows_to_settle=settle,
    )


def check_metric(paired: Paired, policy: Policy, least: float) -> Check:
    """Whether the candidate's own metric reaches what the policy demands, by its interval."""
    lower, upper = share_bounds(paired.candidate_correct, paired.rows, policy.confidence)
    value = paired.candidate_correct / paired.rows
    sure, settle = percent(policy.confidence), None
    if paired.rows < policy.min_rows:
        verdict = Verdict.INCONCLUSIVE
        words = f"The candidate's {paired.metric} is not judged on {paired.rows:,} rows."
    elif lower >= least:
        verdict = Verdict.PASS
        words = f"The candidate's {paired.metric} is at least {lower:.4f} at {sure} confidence; {least:g} is demanded."
    elif upper < least:
        verdict = Verdict.FAIL
        words = f"The candidate's {paired.metric} is at most {upper:.4f} at {sure} confidence; {least:g} is demanded."
    else:
        verdict = Verdict.INCONCLUSIVE
        settle = rows_to_settle_share(paired.candidate_correct, paired.rows, least, policy.confidence)
        words = (
            f"The candidate's {paired.metric} lies between {lower:.4f} and {upper:.4f} at {sure} confidence each way, "
            f"and {least:g} is demanded. {_more(paired.rows, settle, f'the {paired.metric} seen here')}"
        )
    return Check(
        name="min_metric",
        verdict=verdict,
        threshold=least,
        value=value,
        interval=(lower, upper),
        words=words,
        rows_to_settle=settle,
    )


def checks(paired: Paired, policy: Policy) -> list[Check]:
    """The checks of the metric: the drop, the metric itself, and whether there are rows enough for them."""
    found = [check_drop(paired, policy)]
    if policy.min_metric is not None:
        found.append(check_metric(paired, policy, policy.min_metric))
    return [*found, check_rows(paired, policy)]


def overall(found: Sequence[Check]) -> tuple[Verdict, list[str]]:
    """The verdict over all checks, and every check's words, the deciding ones first.

    One fail fails; else one inconclusive check leaves it open.
    """
    # Too few rows are why the others are open, and are said before them; rows enough are the least of the news.
    ordered = sorted(found, key=_rank)
    return ordered[0].verdict, [check.words for check in ordered]


def _rank(check: Check) -> tuple[int, int]:
    first = -1 if check.verdict is not Verdict.PASS else 1
    return _ORDER[check.verdict], first if check.name == "min_rows" else 0


def _more(rows: int, settle: int | None, seen: str) -> str:
    if settle is None:
        return f"With {seen}, no feasible number of rows would (more than {FEASIBLE_ROWS:,})."
    return f"With {seen}, about {settle - rows:,} more rows would ({settle:,} in all)."


def _seen(paired: Paired) -> str:
    return f"{paired.drop_points:+.2f} seen: {paired.lost:,} lost and {paired.gained:,} gained of {paired.rows:,} rows"
