"""The checks of the metric, each with its verdict in words, and the verdict over all checks."""

from __future__ import annotations

from collections.abc import Sequence

from modelmill.core.evidence import Check, Verdict
from modelmill.measuring.noninferiority import FEASIBLE_ROWS
from modelmill.steps.gate.contract import Policy
from modelmill.steps.gate.estimates import Compared
from modelmill.steps.gate.words import percent, points

_ORDER = {Verdict.FAIL: 0, Verdict.INCONCLUSIVE: 1, Verdict.PASS: 2}


def enough(compared: Compared, policy: Policy) -> bool:
    """Whether there is enough to judge the metric by: the policy's rows, and the units that the method needs."""
    return compared.rows >= policy.min_rows and compared.units >= compared.least_units


def check_units(compared: Compared) -> Check:
    """Whether there are units enough, where rows belong together."""
    least, units = compared.least_units, compared.units
    words = (
        f"{units:,} units of evaluation rows, of at least {least:,}."
        if units >= least
        else f"The {compared.rows:,} evaluation rows are {units:,} units, where {least:,} are the least for a verdict "
        "(a bootstrap over units needs so many)."
    )
    verdict = Verdict.PASS if units >= least else Verdict.INCONCLUSIVE
    return Check(name="min_units", verdict=verdict, threshold=least, value=units, words=words)


def check_rows(compared: Compared, policy: Policy) -> Check:
    """Whether there are rows enough to say anything about the metric."""
    least = policy.min_rows if compared.by_unit else max(policy.min_rows, compared.least_units)
    enough = compared.rows >= least
    why = f" (a bootstrap of {compared.metric} needs so many)" if least > policy.min_rows else ""
    words = (
        f"{compared.rows:,} evaluation rows, of at least {least:,}."
        if enough
        else f"Only {compared.rows:,} evaluation rows, where {least:,} are the least for a verdict{why}: "
        f"{least - compared.rows:,} more are needed."
    )
    return Check(
        name="min_rows",
        verdict=Verdict.PASS if enough else Verdict.INCONCLUSIVE,
        threshold=least,
        value=compared.rows,
        words=words,
        rows_to_settle=None if enough else least,
    )


def check_drop(
    compared: Compared,
    policy: Policy,
    *,
    name: str = "max_drop_points",
    limit: float | None = None,
    whose: str = "",
) -> Check:
    """Paired non-inferiority: passes and fails only on what is demonstrated at the policy's confidence.

    Args:
        compared: Both models on the same rows.
        policy: The thresholds.
        name: The policy's field that is judged.
        limit: Points that may be lost, where it is not the policy's ``max_drop_points``.
        whose: What the drop is from, where it is not from the baseline: `` against the champion``.
    """
    lower, upper = compared.drop_bounds(policy.confidence)
    limit, sure = policy.max_drop_points if limit is None else limit, percent(policy.confidence)
    settle, drop = None, f"The drop of {compared.metric}{whose}"
    if not enough(compared, policy):
        verdict = Verdict.INCONCLUSIVE
        words = f"{drop} is not judged on {_few(compared)}."
    elif upper <= limit:
        verdict = Verdict.PASS
        words = (
            f"{drop} is at most {points(upper)} points at {sure} confidence, within the "
            f"{limit:g} allowed ({compared.seen})."
        )
    elif lower > limit:
        verdict = Verdict.FAIL
        words = (
            f"{drop} is at least {points(lower)} points at {sure} confidence, more than the "
            f"{limit:g} allowed ({compared.seen})."
        )
    else:
        verdict = Verdict.INCONCLUSIVE
        settle = compared.rows_to_settle_drop(limit, policy.confidence)
        words = (
            f"{drop} lies between {points(lower)} and {points(upper)} points at {sure} "
            f"confidence each way, and {limit:g} is allowed: {compared.rows:,} rows cannot tell ({compared.seen}). "
            f"{_more(compared.rows, settle, 'the disagreement seen here')}"
        )
    return Check(
        name=name,
        verdict=verdict,
        threshold=limit,
        value=compared.drop_points,
        interval=(lower, upper),
        words=words,
        rows_to_settle=settle,
    )


def check_metric(compared: Compared, policy: Policy, least: float) -> Check:
    """Whether the candidate's own metric reaches what the policy demands, by its interval."""
    lower, upper = compared.candidate_bounds(policy.confidence)
    sure, settle = percent(policy.confidence), None
    if not enough(compared, policy):
        verdict = Verdict.INCONCLUSIVE
        words = f"The candidate's {compared.metric} is not judged on {_few(compared)}."
    elif lower >= least:
        verdict = Verdict.PASS
        words = (
            f"The candidate's {compared.metric} is at least {lower:.4f} at {sure} confidence; {least:g} is demanded."
        )
    elif upper < least:
        verdict = Verdict.FAIL
        words = f"The candidate's {compared.metric} is at most {upper:.4f} at {sure} confidence; {least:g} is demanded."
    else:
        verdict = Verdict.INCONCLUSIVE
        settle = compared.rows_to_settle_metric(least, policy.confidence)
        words = (
            f"The candidate's {compared.metric} lies between {lower:.4f} and {upper:.4f} at {sure} confidence each "
            f"way, and {least:g} is demanded. {_more(compared.rows, settle, f'the {compared.metric} seen here')}"
        )
    return Check(
        name="min_metric",
        verdict=verdict,
        threshold=least,
        value=compared.candidate,
        interval=(lower, upper),
        words=words,
        rows_to_settle=settle,
    )


def checks(compared: Compared, policy: Policy) -> list[Check]:
    """The checks of the metric: the drop, the metric itself, and whether there are rows enough for them."""
    found = [check_drop(compared, policy)]
    if policy.min_metric is not None:
        found.append(check_metric(compared, policy, policy.min_metric))
    if compared.by_unit:
        found.append(check_units(compared))
    return [*found, check_rows(compared, policy)]


def overall(found: Sequence[Check]) -> tuple[Verdict, list[str]]:
    """The verdict over all checks, and every check's words, the deciding ones first.

    One fail fails; else one inconclusive check leaves it open.
    """
    # Too few rows are why the others are open, and are said before them; rows enough are the least of the news.
    ordered = sorted(found, key=_rank)
    return ordered[0].verdict, [check.words for check in ordered]


def _rank(check: Check) -> tuple[int, int]:
    first = -1 if check.verdict is not Verdict.PASS else 1
    return _ORDER[check.verdict], first if check.name in {"min_rows", "min_units"} else 0


def _few(compared: Compared) -> str:
    return f"{compared.units:,} units" if compared.by_unit else f"{compared.rows:,} rows"


def _more(rows: int, settle: int | None, seen: str) -> str:
    if settle is None:
        return f"With {seen}, no feasible number of rows would (more than {FEASIBLE_ROWS:,})."
    return f"With {seen}, about {settle - rows:,} more rows would ({settle:,} in all)."
