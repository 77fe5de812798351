"""The document that ``modelmill run --json`` prints and a store keeps of each run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import Field

from modelmill.core import errors
from modelmill.core.contract import JSON, Closed
from modelmill.core.evidence import Against, EncoderLatency, Interval, LaneEvidence, Metric, Verdict
from modelmill.core.manifest import canonical
from modelmill.core.served import Opponent
from modelmill.line import Decision


class Status(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    PROMOTED = "promoted"
    HELD = "held back"
    """The gate passed and the bundle is registered; a person's pin kept the channel where it was."""
    REFUSED = "refused"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def exit_code(self) -> int:
        """The exit code of ``modelmill run``.

        A promotion that a pin holds back is 0: all that the run is for has been done, nothing is wrong with the input
        or outside, and a nightly run must not fail for as long as a person means the channel to stay.
        """
        return {Status.PROMOTED: 0, Status.HELD: 0, Status.REFUSED: 3, Status.INCONCLUSIVE: 4}.get(self, 1)

    @classmethod
    def of(cls, decision: Decision) -> Status:
        """The status of a finished run whose lanes came to ``decision``."""
        return {
            Decision.PASS: cls.PROMOTED,
            Decision.FAIL: cls.REFUSED,
            Decision.INCONCLUSIVE: cls.INCONCLUSIVE,
            Decision.UNAVAILABLE: cls.FAILED,
        }[decision]


class StepRow(Closed):
    """One finished task."""

    name: str
    part: str | None = None
    target: str | None
    key: str
    digest: str = Field(description="of the output, or over all outputs where the step has several")
    reproducible: bool
    outputs: dict[str, str] = Field(description="output port → URI")
    digests: dict[str, str] = Field(description="output port → digest")
    inputs: dict[str, str | dict[str, str]] = Field(description="input port → digest, or target → digest")
    cached: bool
    seconds: float = Field(description="what making the output took, also where it was found in the store")
    peak_rss_bytes: int
    facts: dict[str, JSON] = Field(default_factory=dict)

    @property
    def task(self) -> str:
        """The task's id in the line: ``export.cpu-int8``."""
        step = f"{self.name}-{self.part}" if self.part else self.name
        return f"{step}.{self.target}" if self.target else step


class LatencyRow(Closed):
    """One measured cell."""

    workload: str
    batch_size: int
    sequence_length: int
    baseline_ms_p50: float
    candidate_ms_p50: float
    candidate_ms_p95: float
    speedup: float
    speedup_ci: Interval
    gain_over_unquantized: float
    gain_over_unquantized_ci: Interval

    @classmethod
    def of(cls, cell: EncoderLatency) -> LatencyRow:
        """The cell without its samples."""
        return cls(**{name: getattr(cell, name) for name in cls.model_fields})


class TargetRow(Closed):
    """One lane."""

    verdict: Verdict
    reasons: list[str]
    hardware_class: str
    metric: Metric
    baseline: float
    candidate: float
    drop_points: float
    drop_points_ci: Interval
    against: dict[Opponent, Against] = Field(
        default_factory=dict, description="what the channel served, where the recipe's gate asks for it"
    )
    latency: list[LatencyRow]
    size_bytes: int
    size_ratio: float
    peak_rss_bytes: int
    precision: str
    artifact: str = Field(description="URI of the candidate")
    digest: str = Field(description="digest of the candidate")

    @classmethod
    def of(cls, evidence: LaneEvidence, artifact: str, digest: str) -> TargetRow:
        """The lane's row from its verdict."""
        measured = evidence.measurements
        return cls(
            verdict=evidence.verdict,
            reasons=evidence.reasons,
            hardware_class=measured.hardware_class,
            metric=evidence.metric,
            baseline=evidence.baseline,
            candidate=evidence.candidate,
            drop_points=evidence.drop_points,
            drop_points_ci=evidence.drop_points_ci,
            against=evidence.against,
            latency=[LatencyRow.of(cell) for cell in measured.latency],
            size_bytes=measured.size_bytes,
            size_ratio=measured.size_ratio,
            peak_rss_bytes=measured.peak_rss_bytes,
            precision=evidence.precision,
            artifact=artifact,
            digest=digest,
        )


class RunDocument(Closed):
    """One run of the line."""

    format: int = 1
    run: str
    recipe: str = Field(description="the recipe's name")
    recipe_digest: str = Field(description="digest of the validated recipe")
    status: Status
    started_at: str = Field(description="UTC, ISO 8601")
    finished_at: str | None = None
    seconds: float = 0.0
    steps: list[StepRow] = Field(default_factory=list)
    targets: dict[str, TargetRow] = Field(default_factory=dict)
    unavailable: dict[str, str] = Field(
        default_factory=dict, description="target → what failed outside, so that its lane was not judged"
    )
    attempts: dict[str, int] = Field(
        default_factory=dict, description="lane's task → how often an orchestrator has started it"
    )
    bundle: str | None = Field(None, description="URI of the published bundle")
    bundle_digest: str | None = None
    channel: str | None = Field(None, description="the channel that names the bundle")
    held: str | None = Field(None, description="why the channel was left where it was, though the gate passed")
    git: dict[str, JSON] | None = Field(
        None, description="what became of the promotion in Git: outcome, commit, pull_request"
    )
    mirrors: list[dict[str, JSON]] = Field(
        default_factory=list, description="how each mirror of the registry stands: mirror, where, state, words"
    )
    report: str | None = Field(None, description="URI of the HTML report")
    error: str | None = Field(None, description="what ended a failed run")
    error_class: str | None = Field(None, description="its class in modelmill.core.errors, which has the exit code")

    @property
    def seconds_since_start(self) -> float:
        """What a run that is still under way has taken so far, by this machine's clock."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.started_at)).total_seconds()

    def raise_error(self) -> None:
        """Raise what ended the run, if it failed."""
        if self.status is not Status.FAILED:
            return
        kind = getattr(errors, self.error_class or "", errors.ModelmillError)
        kind = errors.StoreError if kind is errors.CorruptArtifactError else kind
        what = self.error or "the run failed"
        raise kind(what, fix=None if "\n  fix:" in what else f"modelmill runs show {self.run} says how far it came")


def warnings_of(rows: Iterable[StepRow]) -> list[str]:
    """What a reader of a run must know besides its numbers, such as rows that both train and judge."""
    found: list[str] = []
    for row in rows:
        data = row.facts.get("data")
        for words in (row.facts.get("warnings"), data.get("findings") if isinstance(data, dict) else None):
            found += [str(word) for word in words] if isinstance(words, list) else []
    return found


def overall_digest(outputs: Mapping[str, str]) -> str:
    """One digest for a task: its output's, or one over all of them by port."""
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    return "sha256:" + hashlib.sha256(canonical(dict(outputs))).hexdigest()


def safe_name(run: str) -> str:
    """An orchestrator's name for a run as a store can name it: Airflow's have colons and plus signs.

    A name that had to change ends in a digest of the whole, so that two runs never share one.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", run).strip("-.")[:100]
    return safe if safe == run else f"{safe}-{hashlib.sha256(run.encode()).hexdigest()[:8]}"
