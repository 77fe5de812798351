"""What the settings of all steps have in common: the name of a task in them is this version's."""

from __future__ import annotations

from pydantic import field_validator

from modelmill.core.contract import Closed
from modelmill.core.documents import nearest
from modelmill.tasks import registry as tasks


def known_task(value: str) -> str:
    """The name of a task, as pydantic's validators have it."""
    if value not in tasks.names():
        near = nearest(value, tasks.names())
        hint = f"did you mean {near}?" if near else f"known: {', '.join(tasks.names())}"
        problem = f"there is no task {value!r}: {hint}"
        raise ValueError(problem)
    return value


class StepSettings(Closed):
    """Base of a step's settings: a ``task`` that this version has not is refused by the field's name.

    A recipe refuses it, too, and a step that is used by itself has none.
    """

    _task = field_validator("task", check_fields=False)(known_task)
