"""What the registry's documents say: a bundle's record, a channel with its history, its pin.

A channel's document has format 2 since moves have a kind and a channel may have a pin and a reference; format 1 is read
as moves that publish made. Since format 3 it names the artifact beside the bundle: what a channel leads to changes by a
move of that channel alone, whoever signs the same bundle for another one. An older modelmill refuses what is newer than
itself, rather than drop a pin.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, field_validator

from modelmill.core.contract import Closed
from modelmill.core.records import Digest

CHANNEL_FORMAT = 3
BUNDLE_FORMAT = 2


class BundleRecord(Closed):
    """``bundles/<hex>.json``: a registered bundle."""

    format: int = BUNDLE_FORMAT
    model: str
    bundle: Digest
    artifact: Digest = Field(description="the stored artifact that holds it; of several the latest signer's")
    registered_at: str = Field(description="UTC, ISO 8601")
    run: str | None = Field(None, description="the run that registered it")
    signer: str | None = Field(
        None, description="fingerprint of the key, or identity, that signed the artifact; none: unsigned"
    )
    earlier: dict[Digest, str | None] = Field(
        default_factory=dict, description="artifacts of the same bundle that another key, or none, had signed → signer"
    )
    judged_on: list[Digest] = Field(
        default_factory=list, description="the evaluation rows and predictions that a cluster serving it is asked again"
    )

    @field_validator("earlier", mode="before")
    @classmethod
    def _of_format_1(cls, value: object) -> object:
        return dict.fromkeys(value) if isinstance(value, list) else value

    @property
    def signers(self) -> dict[str, str | None]:
        """Every artifact of the bundle → who signed it."""
        return {**self.earlier, self.artifact: self.signer}

    def led_to(self, artifact: str | None) -> BundleRecord:
        """This record with one of its artifacts as the one that holds the bundle; itself where it has no such one."""
        if artifact not in self.earlier:
            return self
        rest = {other: signer for other, signer in self.signers.items() if other != artifact}
        return self.model_copy(update={"artifact": artifact, "signer": self.earlier[artifact], "earlier": rest})


class MoveKind(StrEnum):
    """What an entry of a channel's history is."""

    PUBLISHED = "published"
    """A run promoted its bundle."""
    PROMOTED = "promoted by hand"
    ROLLED_BACK = "rolled back"
    """A person took the channel back, which pins it."""
    UNPINNED = "unpinned"
    """A person lifted the pin; the channel stays where it is."""
    HELD_BACK = "held back"
    """A run would have promoted `Move.offered`, and the pin kept the channel where it is."""
    SIGNED_ANEW = "signed anew"
    """The channel leads to an artifact of the same bundle that another key signed."""
    REFERENCED = "reference pinned"
    """A person made `Move.reference` what every candidate is held against; the channel stays where it is."""


class Move(Closed):
    """One entry of a channel's history."""

    number: int = Field(ge=1, description="1 is the channel's first; each is one above the former")
    kind: MoveKind = MoveKind.PUBLISHED
    bundle: Digest = Field(description="what the channel names since")
    artifact: Digest | None = Field(
        None, description="the artifact that holds it; none in documents before format 3: as the bundle's record says"
    )
    previous: Digest | None = Field(description="what the channel named before")
    at: str = Field(description="UTC, ISO 8601, by the writer's clock; the order is the number's")
    run: str | None = None
    by: str | None = Field(None, description="the person, where one did it")
    why: str | None = Field(None, description="the reason that the person gave")
    override: bool = Field(False, description="whether the bundle had no passing verdict, and a person overrode that")
    offered: Digest | None = Field(None, description="the bundle that a pin held back")
    reference: Digest | None = Field(None, description="the bundle that became the reference")


class Pin(Closed):
    """Keeps a channel where it is against automatic promotions, until a person lifts it."""

    by: str
    why: str | None = None
    at: str = Field(description="UTC, ISO 8601")


class Channel(Closed):
    """``channels/<channel>.json``."""

    format: int = CHANNEL_FORMAT
    model: str
    channel: str
    bundle: Digest = Field(description="what the channel names now")
    pin: Pin | None = None
    reference: Digest | None = Field(
        None, description="the bundle that every candidate is held against, which a person alone moves"
    )
    history: list[Move] = Field(min_length=1, description="oldest first; the last is how it came to `bundle`")

    @property
    def arrived(self) -> Move:
        """The move by which the channel came to what it leads to: the latest one that changed that."""
        return next(
            move for move in reversed(self.history) if move.bundle != move.previous or move.kind is MoveKind.SIGNED_ANEW
        )

    def artifact_of(self, bundle: str) -> str | None:
        """The artifact of a bundle that the channel led to last; None where it never did, or did not keep it."""
        return next((move.artifact for move in reversed(self.history) if move.bundle == bundle), None)

    @property
    def number(self) -> int:
        """The number of the latest entry; who compares two states of a channel goes by it."""
        return self.history[-1].number
