"""The licence that a model's source names: the front matter of its model card, as the Hub has it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelmill.steps.fetch.sources.base import Fetched

CARD = "README.md"
_LONGEST = 1 << 16
# One name, as the Hub's list of licences has them: apache-2.0.
_LINE = re.compile(r"^license:[ \t]*['\"]?([A-Za-z0-9][A-Za-z0-9.+-]{0,63})['\"]?[ \t]*$", re.MULTILINE)


def take_licence(files: Sequence[Fetched]) -> tuple[list[Fetched], str | None]:
    """The files without the model card, which is removed, and the licence that it names, or None.

    The card is a text about the model and no part of it: a later word in it must not change what is made.
    """
    found = None
    for file in files:
        if file.name == CARD:
            with file.path.open("rb") as stream:
                text = stream.read(_LONGEST).decode("utf-8", "replace").replace("\r\n", "\n")
            head = text.split("\n---", 1)[0] if text.startswith("---\n") else ""
            match = _LINE.search(head)
            found = match[1].lower() if match else None
            file.path.unlink()
    return [file for file in files if file.name != CARD], found
