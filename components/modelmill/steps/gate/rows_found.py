"""The checks of the rows themselves: did they choose what they judge, and are they like what was trained on?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from modelmill.core.evidence import Check, RowsFound, Verdict
from modelmill.core.rows import Dataset
from modelmill.steps.gate.contract import Policy
from modelmill.steps.gate.words import percent


def rows_found(dataset: Dataset, labels: Iterable[str | None], confidence: float) -> RowsFound:
    """What fetch found about the rows, and how far their classes lie from those trained on.

    Args:
        dataset: The evaluation rows' document; its facts may lack what another step did not look for.
        labels: Each row's label; None for tasks without labels.
        confidence: Of the lower bound.
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
    )


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


def checks(found: RowsFound, rows: int, policy: Policy) -> list[Check]:
    """Whether rows that judge also chose the model, and whether their classes are shown to have shifted."""
    made = []
    if found.leaked is not None:
        made.append(check_leaked(found.leaked, found.leaked_with_another_label or 0, rows, policy.max_leaked_share))
    if policy.max_class_shift is not None and found.class_shift is not None and found.class_shift_at_least is not None:
        made.append(check_shift(found.class_shift, found.class_shift_at_least, policy.max_class_shift))
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
