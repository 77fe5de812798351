"""What the templates need to know of a run besides its lanes: outcome, steps and artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from modelmill.core.contract import JSON
from modelmill.core.evidence import Verdict
from modelmill.core.registry_documents import Channel, Move, MoveKind
from modelmill.reports import lineage, numbers, plots
from modelmill.reports.view import Edge, RunStatus, RunView, StepRow


@dataclass(frozen=True)
class StepLine:
    """A step as the page shows it."""

    step: StepRow
    label: str
    lane: str
    span: Markup


@dataclass(frozen=True)
class Artifact:
    """One input or output of a step in the lineage's table; ``source`` is None for an output."""

    step: str
    port: str
    source: str | None
    digest: str


@dataclass(frozen=True)
class ChannelMove:
    """An entry of a channel's history as the page shows it.

    Attributes:
        move: The entry.
        other: A bundle that it is about besides the one that the channel names: held back, or pinned as reference.
        verdict: What the gate had said of what was promoted.
        by: Who or what did it.
    """

    move: Move
    other: str | None
    verdict: str
    by: str


MOVES = 10
"""Entries of a channel's history that are shown."""
_PASSED = {MoveKind.PUBLISHED, MoveKind.PROMOTED, MoveKind.HELD_BACK}


def channel_moves(registered: Channel | None) -> list[ChannelMove]:
    """The latest entries of a channel's history, the newest first."""
    moves = registered.history[-MOVES:] if registered else []
    return [
        ChannelMove(
            move,
            move.offered or move.reference,
            "none that passes: overridden" if move.override else "pass" if move.kind in _PASSED else numbers.DASH,
            move.by or (f"run {move.run}" if move.run else numbers.DASH),
        )
        for move in reversed(moves)
    ]


def headline(run: RunView) -> str:
    """The run's outcome in one sentence or two."""
    passed = sum(evidence.verdict is Verdict.PASS for evidence in run.lanes)
    all_lanes = len(run.lanes)
    of = f"{passed} of {all_lanes} targets passed the gate."
    if all_lanes == 1:
        of = f"The target {'passed' if passed else 'did not pass'} the gate."
    channel = f"the channel {run.channel}" if run.channel else "no channel"
    return {
        RunStatus.PROMOTED: f"{of} The bundle is in {channel}.",
        RunStatus.HELD: f"{of} The bundle is registered; a pin keeps the channel where it was.",
        RunStatus.REFUSED: f"{of} Nothing was promoted: {channel} {'is as it was' if run.channel else 'moved'}.",
        RunStatus.INCONCLUSIVE: f"{of} The evidence decides neither way, so nothing was promoted.",
        RunStatus.ASSEMBLED: f"{of} This report was written when the bundle was assembled, before a channel moved.",
    }[run.status]


def sources(recipe: Mapping[str, JSON]) -> list[tuple[str, str]]:
    """Where the recipe's model and data come from: (``model``, reference) and (``data``, reference)."""
    found = []
    for name in ("model", "data"):
        section = recipe.get(name)
        source = section.get("source") if isinstance(section, dict) else None
        if isinstance(source, str):
            found.append((name, source))
    return found


def step_lines(steps: Sequence[StepRow], lanes: Sequence[str]) -> list[StepLine]:
    """The steps with their bars: placed by their start where every fresh step has one, else all from the left."""
    fresh = [step for step in steps if not step.cached]
    placed = bool(fresh) and all(step.started_seconds is not None for step in fresh)
    starts = [(step.started_seconds or 0.0) if placed and not step.cached else 0.0 for step in steps]
    whole = max([0.0, *(start + step.seconds for start, step in zip(starts, steps, strict=True))])
    return [
        StepLine(
            step,
            step.id.replace("_", "-"),
            lineage.lane_class(step.target, lanes),
            plots.span(
                start,
                step.seconds,
                whole,
                f"{step.id} {numbers.seconds(step.seconds)}",
                lineage.lane_class(step.target, lanes),
                cached=step.cached,
            ),
        )
        for start, step in zip(starts, steps, strict=True)
    ]


def artifacts(steps: Sequence[StepRow], edges: Sequence[Edge]) -> list[Artifact]:
    """Every input and output of every step, in order."""
    found = []
    for index, step in enumerate(steps):
        name = _named(step)
        for edge in edges:
            if edge.sink == index:
                source = _named(steps[edge.source]) if edge.source is not None else "outside this run"
                found.append(Artifact(name, edge.port, source, edge.digest))
        found += [Artifact(name, port, None, digest) for port, digest in step.digests.items()]
    return found


def _named(step: StepRow) -> str:
    return f"{step.id} ({step.target})" if step.target else step.id
