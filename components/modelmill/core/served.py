"""What a channel serves, as evaluate and gate see it: its champion, and the reference that a person alone moves."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from modelmill.core.contract import Closed

Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class Opponent(StrEnum):
    """Whom a candidate is held against besides the baseline."""

    CHAMPION = "champion"
    """The bundle that the channel names."""
    REFERENCE = "reference"
    """The bundle that a person pinned as the channel's reference."""


class Standing(StrEnum):
    """Whether the candidate could be held against an opponent, and if not, why."""

    PREDICTED = "predicted"
    """It answered the evaluation rows."""
    SAME = "the candidate's own model"
    NONE = "none yet"
    """The channel names none: nothing was promoted to it, or no reference was pinned."""
    ABSENT = "no such lane"
    """Its bundle has no lane of this name: nothing is served for this target."""
    GONE = "gone"
    """Its bundle is not in the store any more."""
    UNLIKE = "not comparable"
    """It is of another task or other labels, or does not run here."""


class Sensed(Closed):
    """What a channel was found to name when a step's key was made."""

    bundle: Digest | None = Field(None, description="the bundle's digest; none: the channel names none")
    gone: str | None = Field(None, description="why its files cannot be had, in words")


class Served(Closed):
    """One opponent, and what was found of it."""

    standing: Standing
    bundle: Digest | None = None
    model: Digest | None = Field(None, description="the model of its lane")
    problem: str | None = Field(None, description="why the candidate could not be held against it, in words")
    classes: dict[str, int] | None = Field(
        None, description="evaluation rows of each class when it was judged; None: its evidence does not say"
    )
    trained_classes: dict[str, int] | None = Field(None, description="the same of the rows it was trained on")
