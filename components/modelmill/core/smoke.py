"""How a lane is served, and what was found when it was: the document that evaluate's smoke test writes."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from modelmill.core.contract import Closed
from modelmill.core.manifest import FileEntry

SMOKE_DOCUMENT = "smoke.json"


class ServingPlan(Closed):
    """What a lane's serving files say besides the model itself. It holds no timing: the bundle's digest covers it."""

    model: str = Field(description="what the server calls it: the model's name in the registry")
    runtime: str = Field(description="what runs the graphs: onnxruntime")
    threads: int = Field(ge=1, description="threads within an operator: those that evaluate measured under")
    max_batch: int = Field(ge=1, description="texts of a request, and of a batch, at most: what evaluate ran")
    together: bool = Field(
        description="whether texts of several requests may stand in one batch: evaluate saw no prediction flip by that"
    )


class SmokeState(StrEnum):
    """How far a smoke test came."""

    ANSWERED = "answered"
    """The server answered all that it was asked."""
    FAILED = "failed"
    """The server did not load the model, or refused a text."""
    NOT_RUN = "not run"


class ServedRow(Closed):
    """One row on which the server says something else than the evaluation."""

    row: str = Field(description="the row's id")
    evaluated: str
    served: str


class ServedLatency(Closed):
    """One text a request, from text to scores on both sides, in turns."""

    sequence_length: int = Field(description="tokens")
    in_process_ms_p50: float = Field(description="tokenising and running the same model in the process that asks")
    in_process_ms_p95: float
    served_ms_p50: float = Field(description="over HTTP on loopback")
    served_ms_p95: float
    p50_ratio: float = Field(description="served over in-process")
    p50_ratio_ci: tuple[float, float]
    p95_ratio: float
    p95_ratio_ci: tuple[float, float]
    samples_ms: dict[str, list[float]] = Field(
        default_factory=dict, description="in_process, served → every timed call in order"
    )


class Smoke(Closed):
    """``smoke.json``."""

    format: int = 1
    state: SmokeState
    words: str = Field(description="one sentence for people: what was found, or why nothing was tried")
    judged: str = Field(description="digest of the model artifact that was served, sha256:…")
    plan: ServingPlan | None = Field(None, description="None: the lane has no serving files")
    files: dict[str, FileEntry] = Field(
        default_factory=dict, description="the serving files that were tried, as the bundle has them below the lane"
    )
    server: str | None = Field(None, description="the server and its version")
    packages: dict[str, str] = Field(default_factory=dict, description="of the server's environment")
    rows: int = Field(0, description="evaluation rows sent, in the evaluation's own batches")
    differing: int = Field(0, description="rows on which the server says another class than the evaluation")
    differences: list[ServedRow] = Field(default_factory=list, description="the first twenty of them")
    largest_change: float | None = Field(None, description="of a class's share, absolute, over all rows sent")
    latency: ServedLatency | None = None
