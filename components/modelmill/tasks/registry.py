"""Tasks by the name recipes use."""

from __future__ import annotations

from modelmill.core.errors import RecipeError
from modelmill.tasks.base import Task
from modelmill.tasks.text_classification import TextClassification

_TASKS: dict[str, Task] = {}


def register(task: Task) -> None:
    """Make a task known under its name; a later one of the same name replaces it."""
    _TASKS[task.name] = task


def names() -> list[str]:
    """The names of all tasks, sorted."""
    return sorted(_TASKS)


def get(name: str) -> Task:
    """The task of that name.

    Raises:
        RecipeError: There is none.
    """
    if name not in _TASKS:
        what = f"there is no task {name!r}"
        raise RecipeError(what, where="task", fix=f"use one of: {', '.join(names())}")
    return _TASKS[name]


register(TextClassification())
