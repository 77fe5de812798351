"""The commands by the module that has them: a module is loaded when one of its commands is asked for.

A container's task is one command, and loading all of them took longer than a task that is found in the store.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import typer
from typer.core import TyperGroup

MODULES = {
    "recipes": ("init", "check", "schema"),
    "running": ("run", "step", "plan"),
    "tasks": ("task",),
    "components": ("component",),
    "orchestration": ("compile",),
    "history": ("report", "runs"),
    "bench": ("bench",),
    "artifacts": ("verify",),
    "storage": ("push", "gc"),
    "registry": ("channel",),
    "mirrors": ("mirror",),
    "serving": ("serving",),
    "schedules": ("schedule",),
}
"""Module of this package → its commands, in the order in which help lists them."""


class _Commands(MutableMapping[str, Any]):
    """Name → command, loaded on the first look at it."""

    def __init__(self) -> None:
        self._modules = {name: module for module, names in MODULES.items() for name in names}
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            app = typer.Typer(rich_markup_mode=None)
            importlib.import_module(f"modelmill.cli.{self._modules[name]}").add_to(app)
            self._loaded |= typer.main.get_group(app).commands
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


class Groups(TyperGroup):
    """The command ``modelmill``: all commands of `MODULES`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": {}})
        self.commands = _Commands()
