"""The checks of the smoke test: what a real server says, and how long it takes."""

from __future__ import annotations

from modelmill.core.evidence import Check, Verdict
from modelmill.core.smoke import ServedLatency, Smoke, SmokeState
from modelmill.steps.gate.contract import Policy


def checks(smoke: Smoke, policy: Policy) -> list[Check]:
    """Whether the server says what the evaluation says, as fast as demanded; the time alone where none was tried."""
    found = [] if smoke.state is SmokeState.NOT_RUN else [check_answers(smoke)]
    most = policy.max_served_p95_ratio
    if most is not None and smoke.latency is not None:
        found.append(check_time(smoke.latency, most))
    elif most is not None and smoke.state is not SmokeState.FAILED:
        words = f"In the server no time was taken, of which at most {most:g} times that in one process is allowed."
        words = f"{words} {smoke.words}"
        verdict = Verdict.INCONCLUSIVE
        found.append(Check(name="max_served_p95_ratio", verdict=verdict, threshold=most, value=None, words=words))
    return found


def check_answers(smoke: Smoke) -> Check:
    """Whether the server answered, and each prediction is the evaluation's; exact for the rows sent."""
    answered = smoke.state is SmokeState.ANSWERED
    words = f"In the server: {smoke.words}"
    if answered and smoke.differing:
        first = smoke.differences[0]
        words += f" The first is {first.row}: {first.served} there, {first.evaluated} in the evaluation."
    return Check(
        name="smoke",
        verdict=Verdict.PASS if answered and not smoke.differing else Verdict.FAIL,
        threshold=0,
        value=smoke.differing,
        words=words,
    )


def check_time(latency: ServedLatency, most: float) -> Check:
    """Whether one text takes no longer in the server than allowed, by the bounds of the measured ratio."""
    lower, upper = latency.p95_ratio_ci
    what = f"In the server the 95th percentile of one text's time (length {latency.sequence_length}) is"
    if upper <= most:
        verdict = Verdict.PASS
        words = f"{what} at most {upper:.2f} times that in one process, within the {most:g} allowed."
    elif lower > most:
        verdict = Verdict.FAIL
        words = f"{what} at least {lower:.2f} times that in one process, more than the {most:g} allowed."
    else:
        verdict = Verdict.INCONCLUSIVE
        words = (
            f"{what} between {lower:.2f} and {upper:.2f} times that in one process, and {most:g} is allowed: the "
            "timings cannot tell. A quieter machine, or more measure.seconds_per_cell, narrows it."
        )
    return Check(
        name="max_served_p95_ratio",
        verdict=verdict,
        threshold=most,
        value=latency.p95_ratio,
        interval=latency.p95_ratio_ci,
        words=words,
    )
