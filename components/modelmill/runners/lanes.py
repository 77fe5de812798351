"""Lanes that are unavailable: something outside failed in one of their tasks, in every attempt.

A task of an orchestrated run does not know how often it was started, and no two orchestrators could tell it alike. The
run's document counts, so that the last attempt that fails ends well and says `UNAVAILABLE`, which the lane's other
tasks pass on; the other lanes are judged, and what the recipe requires decides. Nothing of it is stored under a step
key: the next run tries again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelmill.core.errors import OutsideError
from modelmill.line import UNAVAILABLE
from modelmill.runners.result import RunDocument

_LONGEST_REASON = 300


def reason_of(task: str, error: OutsideError) -> str:
    """What failed, on one line."""
    return f"{task}: {' '.join(error.what.split())}"[:_LONGEST_REASON]


def begun(document: RunDocument, task: str, attempts: int) -> RunDocument:
    """A run's document with one more attempt of a lane's task.

    One that was tried as often as it may be, and is started again, was started by a person: it begins anew.

    Args:
        document: As it is.
        task: ``export.cpu-int8``.
        attempts: How often the orchestrator starts it.
    """
    before = document.attempts.get(task, 0)
    if before < attempts:
        return document.model_copy(update={"attempts": {**document.attempts, task: before + 1}})
    others = {name: why for name, why in document.unavailable.items() if name != lane_of(task)}
    return document.model_copy(update={"attempts": {**document.attempts, task: 1}, "unavailable": others})


def ended_unavailable(document: RunDocument, task: str, why: str) -> RunDocument:
    """A run's document in which the lane of ``task`` is unavailable; the first reason that was found stays."""
    said_by_us = (document.error or "").startswith(f"{task}: ")
    cleared = {"error": None, "error_class": None} if said_by_us else {}
    return document.model_copy(update={"unavailable": {lane_of(task): why, **document.unavailable}, **cleared})


def lane_of(task: str) -> str:
    """The target's name in a lane's task; empty outside of lanes."""
    return task.partition(".")[2]


def unavailable_inputs(inputs: Sequence[str]) -> list[str]:
    """The names among ``NAME=POINTER#PORT`` whose task said that its lane is unavailable."""
    named = (text.partition("=") for text in inputs)
    return [name for name, _, pointer in named if pointer.partition("#")[0] == UNAVAILABLE]


def without(inputs: Sequence[str], lanes: Mapping[str, str]) -> list[str]:
    """The ``PORT.LANE=POINTER#PORT`` of other lanes."""
    return [text for text in inputs if lane_of(text.partition("=")[0]) not in lanes]


def among(document: RunDocument, lanes: Sequence[str]) -> Mapping[str, str]:
    """Target → why, for lanes whose tasks said that they are unavailable."""
    return {name: document.unavailable.get(name, "what feeds it is unavailable") for name in lanes}
