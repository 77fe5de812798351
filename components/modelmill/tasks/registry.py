"""Tasks by the name recipes use."""

from __future__ import annotations

import importlib
from typing import cast

from modelmill.core.errors import RecipeError
from modelmill.tasks.base import Task

_DECLARED = {"text-classification": "modelmill.tasks.text_classification:TextClassification"}
"""A task's name and its class, imported when it is first asked for: reading a recipe needs the name alone."""

_TASKS: dict[str, Task] = {}


def register(task: Task) -> None:
    """Make a task known under its name; a later one of the same name replaces it."""
    _TASKS[task.name] = task


def names() -> list[str]:
    """The names of all tasks, sorted."""
    return sorted({*_DECLARED, *_TASKS})


def get(name: str) -> Task:
    """The task of that name.

    Raises:
        RecipeError: There is none.
    """
    if name not in _TASKS:
        if name not in _DECLARED:
            what = f"there is no task {name!r}"
            raise RecipeError(what, where="task", fix=f"use one of: {', '.join(names())}")
        module, _, kind = _DECLARED[name].partition(":")
        register(cast("Task", getattr(importlib.import_module(module), kind)()))
    return _TASKS[name]
