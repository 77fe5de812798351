"""A channel with a history of every kind of entry, and what a lane found against what it serves."""

from __future__ import annotations

import hashlib

from modelmill.core.evidence import Against
from modelmill.core.registry_documents import Channel, Move, MoveKind, Pin
from modelmill.core.served import Opponent, Standing


def digest(name: str) -> str:
    """A digest that stands for ``name``."""
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def channel(words: str = "errors at night", moves: int = 22) -> Channel:
    """Runs, a rollback that pins, a bundle held back, and a reference; ``words`` wherever a person wrote some."""
    history: list[Move] = []

    def add(kind: MoveKind, bundle: str, **fields: object) -> None:
        number = len(history) + 1
        previous = history[-1].bundle if history else None
        at = f"2026-11-{number:02d}T02:15:03+00:00"
        entry = {"number": number, "kind": kind, "bundle": digest(bundle), "previous": previous, "at": at, **fields}
        history.append(Move.model_validate(entry))

    for number in range(moves - 4):
        add(MoveKind.PUBLISHED, f"night {number}", run=f"nightly-{number}")
    before = f"night {moves - 6}"
    add(MoveKind.ROLLED_BACK, before, by=words, why=words)
    add(MoveKind.HELD_BACK, before, run="nightly-held", offered=digest("held"))
    add(MoveKind.REFERENCED, before, by=words, reference=digest("night 0"))
    add(MoveKind.PROMOTED, "by hand", by=words, why=words, override=True)
    return Channel(
        model="banking77",
        channel="staging",
        bundle=history[-1].bundle,
        pin=Pin(by=words, why=words, at="2026-11-19T02:15:03+00:00"),
        reference=digest("night 0"),
        history=history,
    )


def against(candidate: float) -> dict[Opponent, Against]:
    """A champion that answered, and a reference whose bundle is gone."""
    champion = Against(
        standing=Standing.PREDICTED,
        bundle=digest("champion"),
        model=digest("champion model"),
        words="The champion answered the same rows.",
        value=candidate + 0.0026,
        value_ci=(candidate - 0.007, candidate + 0.0118),
        drop_points=0.26,
        drop_points_ci=(-0.05, 0.58),
        gained=14,
        lost=22,
    )
    gone = f"The candidate cannot be held against the reference: the bundle {digest('night 0')} is gone from the store."
    reference = Against(standing=Standing.GONE, bundle=digest("night 0"), words=gone)
    return {Opponent.CHAMPION: champion, Opponent.REFERENCE: reference}
