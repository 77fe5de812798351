"""The candidate against what the channel serves: its champion, and the reference that a person alone moves.

Both answered the same rows as the candidate, and are compared by the method of the drop from the baseline. Where there
is nothing to be held against yet, the check passes and says so; where there is something that cannot be compared, a
bound that was asked for is not shown to hold, and the check is open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from modelmill.core.errors import RecipeError
from modelmill.core.evidence import Against, Check, Verdict
from modelmill.core.served import Opponent, Served, Standing
from modelmill.steps.gate import judge
from modelmill.steps.gate.compare import Answers
from modelmill.steps.gate.contract import Policy
from modelmill.steps.gate.estimates import Compared

Comparing = Callable[[Answers], Compared]
"""How two models' answers are compared."""
_CHECKS = {Opponent.CHAMPION: "max_drop_vs_champion_points", Opponent.REFERENCE: "max_drop_vs_reference_points"}


def judged(
    served: Mapping[Opponent, Served],
    predicted: Mapping[Opponent, np.ndarray],
    answers: Answers,
    policy: Policy,
    comparing: Comparing,
    correct: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> tuple[dict[Opponent, Against], list[Check]]:
    """What is told of each opponent, and the checks that the policy asks for.

    Args:
        served: What evaluate found of each.
        predicted: Opponent → its answers, in the candidate's numbering of labels.
        answers: The baseline's and the candidate's.
        policy: The thresholds.
        comparing: How two models' answers are compared.
        correct: Which answers are right, given the references.

    Raises:
        RecipeError: A bound is asked for, and evaluate was not told to ask what is served.
    """
    told: dict[Opponent, Against] = {}
    checks: list[Check] = []
    for opponent, name in _CHECKS.items():
        limit: float | None = getattr(policy, name)
        found = served.get(opponent)
        if found is None:
            if opponent in policy.against:
                what = f"the candidate's predictions say nothing of the {opponent.value}, which the policy asks for"
                fix = "give evaluate-candidate the setting served: model, channel, lane, against"
                raise RecipeError(what, where="gate", fix=fix)
            continue
        compared = None
        if found.standing in {Standing.PREDICTED, Standing.SAME}:
            theirs = predicted[opponent] if found.standing is Standing.PREDICTED else answers.candidate
            right = correct(theirs, answers.reference)
            compared = comparing(replace(answers, baseline=theirs, baseline_right=right))
        told[opponent] = _told(opponent, found, compared, policy.confidence)
        if limit is not None:
            checks.append(_check(opponent, name, limit, found, compared, policy))
    return told, checks


def _told(opponent: Opponent, found: Served, compared: Compared | None, confidence: float) -> Against:
    words = _in_words(opponent, found)
    plain = Against(standing=found.standing, bundle=found.bundle, model=found.model, words=words)
    if compared is None:
        return plain
    same = found.standing is Standing.SAME
    return plain.model_copy(
        update={
            "value": compared.baseline,
            "value_ci": compared.baseline_bounds(confidence),
            "drop_points": compared.drop_points,
            "drop_points_ci": (0.0, 0.0) if same else compared.drop_bounds(confidence),
            "gained": compared.gained,
            "lost": compared.lost,
        }
    )


def _check(
    opponent: Opponent, name: str, limit: float, found: Served, compared: Compared | None, policy: Policy
) -> Check:
    if found.standing is Standing.PREDICTED and compared is not None:
        return judge.check_drop(compared, policy, name=name, limit=limit, whose=f" against the {opponent.value}")
    # A new lane has nothing to lose to a champion; a reference was pinned for it to be held against.
    nothing_yet = found.standing in {Standing.NONE, Standing.SAME}
    nothing_yet |= found.standing is Standing.ABSENT and opponent is Opponent.CHAMPION
    words = _in_words(opponent, found)
    if not nothing_yet:
        again = {
            Opponent.CHAMPION: "Promote another bundle by hand (modelmill channel promote or rollback)",
            Opponent.REFERENCE: "Pin another bundle (modelmill channel reference)",
        }[opponent]
        words += f" The bound is not shown to hold. {again}, or leave gate.{name} out of one run."
    return Check(
        name=name,
        verdict=Verdict.PASS if nothing_yet else Verdict.INCONCLUSIVE,
        threshold=limit,
        value=0.0 if found.standing is Standing.SAME else None,
        words=words,
    )


def _in_words(opponent: Opponent, found: Served) -> str:
    who = opponent.value
    match found.standing:
        case Standing.PREDICTED:
            return f"The {who} answered the same rows."
        case Standing.SAME:
            return f"The candidate is the {who}'s own model, byte for byte: nothing can be lost against it."
        case Standing.NONE if opponent is Opponent.CHAMPION:
            return "Nothing was promoted to the channel yet: there is no champion to be held against."
        case Standing.NONE:
            return "The channel has no reference yet: modelmill channel reference pins one."
        case Standing.ABSENT if opponent is Opponent.CHAMPION:
            return f"The channel serves nothing for this target yet: {found.problem}."
        case _:
            return f"The candidate cannot be held against the {who}: {found.problem}."
