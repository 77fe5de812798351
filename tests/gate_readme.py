"""The tables of the gate's README that a test makes."""

from __future__ import annotations

import re
from pathlib import Path

from modelmill.steps import gate

README = Path(gate.__file__).with_name("README.md")


def is_in_readme(name: str, lines: list[str]) -> None:
    """Whether the README's table between its markers is ``lines``; pytest shows them where it is not."""
    found = re.search(rf"<!-- generated: {name} -->\n(.*?)<!-- /generated -->", README.read_text("utf-8"), re.DOTALL)
    assert found
    table = "".join(f"{line}\n" for line in lines)
    assert found[1] == table, f"the table {name} is now:\n{table}"
