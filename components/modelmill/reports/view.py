"""What a run's report shows: put together by whoever ran or published, drawn by `modelmill.reports.render`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from modelmill.core.contract import JSON, Closed
from modelmill.core.evidence import LaneEvidence, Searched
from modelmill.core.registry_documents import Channel


class RunStatus(StrEnum):
    """How a run ended."""

    PROMOTED = "promoted"
    """The channel points to this run's bundle."""
    HELD = "held back"
    """Every lane that had to pass did, and a person's pin kept the channel where it was."""
    REFUSED = "refused"
    """The gate failed a lane that had to pass."""
    INCONCLUSIVE = "inconclusive"
    """The gate could not decide."""
    ASSEMBLED = "assembled"
    """The report lies in a bundle and was written before any channel moved."""


def unavailable_in_words(target: str, why: str) -> str:
    """What is said of a lane that is unavailable.

    Args:
        target: The lane's target.
        why: What failed.
    """
    return f"The lane {target} is unavailable, which says nothing of its model; something outside failed: {why}"


class StepRow(Closed):
    """One step of a run, as the runner saw it."""

    name: str
    part: str | None = None
    target: str | None = Field(None, description="the lane; None for what all lanes share")
    key: str = Field(description="sha256:…")
    inputs: dict[str, str | dict[str, str]] = Field(
        default_factory=dict, description="input port → digest, or for a merge port target → digest"
    )
    digests: dict[str, str] = Field(default_factory=dict, description="output port → digest")
    reproducible: bool
    cached: bool
    seconds: float = Field(ge=0, description="of the attempt that made the output")
    peak_rss_bytes: int | None = Field(None, ge=0)
    started_seconds: float | None = Field(None, ge=0, description="after the run's start; None where not recorded")

    @property
    def id(self) -> str:
        """The step's name with its part: ``evaluate-baseline``."""
        return f"{self.name}-{self.part}" if self.part else self.name


@dataclass(frozen=True)
class Edge:
    """One artifact on its way: what made it, and who took it.

    Attributes:
        source: Index of the step that made it, or None where no step of the run did.
        sink: Index of the step that took it.
        port: The sink's input port; a merge port with its target: ``models.cpu-int8``.
        digest: ``sha256:…``.
    """

    source: int | None
    sink: int
    port: str
    digest: str


class RunView(Closed):
    """A run as its report shows it."""

    title: str = Field(description="the recipe's name")
    run: str | None = Field(None, description="the run's id")
    status: RunStatus
    started: str | None = Field(None, description="ISO 8601")
    finished: str | None = Field(None, description="ISO 8601")
    lanes: list[LaneEvidence]
    steps: list[StepRow] = Field(default_factory=list, description="in the order they ran")
    recipe: dict[str, JSON] = Field(default_factory=dict)
    bundle: str | None = Field(None, description="digest or URI")
    channel: str | None = None
    registered: Channel | None = Field(None, description="the channel with its history; None: empty, or not looked at")
    searches: dict[str, Searched] = Field(default_factory=dict, description="target → what its search tried and found")
    warnings: list[str] = Field(default_factory=list, description="what a reader must know, such as duplicate rows")

    @property
    def lineage(self) -> list[Edge]:
        """The edges between steps, derived from digests.

        A step that changes nothing (retrain ``none``) gives the bytes it was given, so several steps may have made
        one digest: the latest before the taker in its own lane is taken, then the latest shared one, then any.
        """
        edges = []
        for sink, step in enumerate(self.steps):
            for port, at in step.inputs.items():
                named = {port: at} if isinstance(at, str) else {f"{port}.{target}": one for target, one in at.items()}
                for name, digest in named.items():
                    lane = step.target or name.partition(".")[2] or None
                    edges.append(Edge(self._maker(sink, lane, digest), sink, name, digest))
        return edges

    def _maker(self, sink: int, lane: str | None, digest: str) -> int | None:
        makers = [index for index in range(sink) if digest in self.steps[index].digests.values()]
        for targets in ({lane}, {None}):
            own = [index for index in makers if self.steps[index].target in targets]
            if own:
                return own[-1]
        return makers[-1] if makers else None
