"""The checks of the rows themselves: did they choose what they judge, and are they like what was trained on?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from modelmill.core.evidence import Check, PublishedShift, RowsFound, Verdict
from modelmill.core.rows import Dataset
from modelmill.core.served import Served, Standing
from modelmill.steps.gate.contract import Policy
from modelmill.steps.gate.words import percent

_PUBLISHED = "max_class_shift_vs_published"
ROLES = {"evaluate": "evaluation", "train": "training"}
"""Whose classes are held against those of the last published run, as words have them."""


def rows_found(
    dataset: Dataset, labels: Iterable[str | None], confidence: float, published: Served | None = None
) -> RowsFound:
    """What fetch found about the rows, and how far their classes lie from those trained on, and from those published.

    Args:
        dataset: The evaluation rows' document; its facts may lack what another step did not look for.
        labels: Each row's label; None for tasks without labels.
        confidence: Of the lower bound.
        published: What the channel serves, with the classes of the rows that it was judged and trained on.
    """
    here = Counter(label for label in labels if label is not None)
    told = dataset.facts.get("train_rows_by_label")
    trained = {label: rows for label, rows in told.items() if isinstance(rows, int)} if isinstance(told, dict) else {}
    shift = class_shift(here, trained, confidence) if here.total() and sum(trained.values()) else (None, None)
    return RowsFound(
        leaked=dataset.number("duplicates"),
        leaked_with_another_label=dataset.number("duplicates_with_another_label"),
        class_shift=shift[0],
        class_shift_at_least=shift[1],
        classes=dict(sorted(here.items())) if here else None,
        trained_classes=dict(sorted(trained.items())) if trained else None,
        published_shift=_published_shift(here, trained, published, confidence) if published else {},
    )


def _published_shift(
    here: Mapping[str, int], trained: Mapping[str, int], published: Served, confidence: float
) -> dict[str, PublishedShift]:
    """Role → how far its rows' classes lie from those of the run whose bundle is served.

    Two distances are looked at, so that each bound is at half the error (Bonferroni).
    """
    pairs = {"evaluate": (here, published.classes), "train": (trained, published.trained_classes)}
    each = 1 - (1 - confidence) / len(pairs)
    found = {}
    for role, (ours, theirs) in pairs.items():
        if theirs and sum(ours.values()) and sum(theirs.values()):
            distance, least = class_shift(ours, theirs, each)
            found[role] = PublishedShift(distance=distance, at_least=least)
    return found


def class_shift(here: Mapping[str, int], trained: Mapping[str, int], confidence: float) -> tuple[float, float]:
    """Total variation distance between the classes' shares in two sets of rows, and its lower bound.

    Of K classes in n and m rows, chance alone adds at most √((K-1)/n)/2 + √((K-1)/m)/2 to the distance on average
    (Cauchy and Schwarz over the classes' standard deviations), and what is seen exceeds its average by t at most
    with probability exp(-2t²/(1/n + 1/m)), since one row moves it by 1/n or 1/m.

    Args:
        here: Rows of each class, at least one.
        trained: The same of the other set.
        confidence: Of the bound, which holds for any classes and any number of rows.

    Source: C. McDiarmid, On the method of bounded differences, Surveys in Combinatorics (1989) 148–188.
    """
    n, m = sum(here.values()), sum(trained.values())
    classes = {*here, *trained}
    seen = sum(abs(here.get(label, 0) / n - trained.get(label, 0) / m) for label in classes) / 2
    chance = (math.sqrt((len(classes) - 1) / n) + math.sqrt((len(classes) - 1) / m)) / 2
    beyond = math.sqrt(-math.log(1 - confidence) * (1 / n + 1 / m) / 2)
    return seen, max(0.0, seen - chance - beyond)


def checks(found: RowsFound, rows: int, policy: Policy, published: Served | None = None) -> list[Check]:
    """Whether rows that judge also chose the model, and whether their classes are shown to have shifted."""
    made = []
    if found.leaked is not None:
        made.append(check_leaked(found.leaked, found.leaked_with_another_label or 0, rows, policy.max_leaked_share))
    if policy.max_class_shift is not None and found.class_shift is not None and found.class_shift_at_least is not None:
        made.append(check_shift(found.class_shift, found.class_shift_at_least, policy.max_class_shift))
    if policy.max_class_shift_vs_published is not None and published is not None:
        made.append(check_published(found, published, policy.max_class_shift_vs_published))
    return made


def check_leaked(leaked: int, conflicting: int, rows: int, most: float) -> Check:
    """Whether few enough evaluation rows have a text that chose the model; exact."""
    within = leaked <= most * rows
    other = f", {conflicting:,} of them under another label" if conflicting else ""
    words = (
        f"{leaked:,} of {rows:,} evaluation rows have a text that also chose the model (train, tune or calibrate)"
        f"{other}: {percent(leaked / rows)}, {'within' if within else 'more than'} the {percent(most)} allowed."
    )
    if not within:
        words += " Rows that were seen before do not judge: take them out of data.evaluate."
    return Check(
        name="max_leaked_share",
        verdict=Verdict.PASS if within else Verdict.FAIL,
        threshold=most,
        value=leaked / rows,
        words=words,
    )


def check_shift(seen: float, least: float, most: float) -> Check:
    """Whether the classes are shown to be distributed otherwise than among the training rows."""
    shown = least > most
    words = f"The classes' shares lie {seen:.3f} from the training rows' (total variation), "
    words += (
        f"at least {least:.3f} of it no chance, more than the {most:g} allowed."
        if shown
        else f"which is not shown to be more than the {most:g} allowed (at least {least:.3f})."
    )
    verdict = Verdict.FAIL if shown else Verdict.PASS
    return Check(
        name="max_class_shift", verdict=verdict, threshold=most, value=seen, interval=(least, seen), words=words
    )


def check_published(found: RowsFound, published: Served, most: float) -> Check:
    """Whether the classes are shown to be distributed otherwise than in the run whose bundle the channel serves."""
    worst = max(found.published_shift.items(), key=lambda item: item[1].at_least, default=None)
    if worst is None:
        nothing_yet = published.standing is Standing.NONE
        words = (
            "Nothing was promoted to the channel yet: there are no classes to hold these against."
            if nothing_yet
            else "The classes cannot be held against those of what the channel serves: "
            f"{published.problem or 'its evidence does not say which rows it had'}."
        )
        verdict = Verdict.PASS if nothing_yet else Verdict.INCONCLUSIVE
        return Check(name=_PUBLISHED, verdict=verdict, threshold=most, value=None, words=words)
    role, shift = worst
    shown = shift.at_least > most
    words = f"The {ROLES[role]} rows' classes lie {shift.distance:.3f} from those of what the channel serves (total "
    words += (
        f"variation), at least {shift.at_least:.3f} of it no chance, more than the {most:g} allowed."
        if shown
        else f"variation), which is not shown to be more than the {most:g} allowed (at least {shift.at_least:.3f})."
    )
    return Check(
        name=_PUBLISHED,
        verdict=Verdict.FAIL if shown else Verdict.PASS,
        threshold=most,
        value=shift.distance,
        interval=(shift.at_least, shift.distance),
        words=words,
    )
