"""``evidence.json``: what a bundle's lanes were found to be, small enough to be read by every machine that asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import modelmill
from modelmill.core.contract import JSON
from modelmill.core.evidence import EncoderLatency
from modelmill.core.history import History
from modelmill.core.smoke import Smoke, SmokeState
from modelmill.steps.publish.assemble import Lane
from modelmill.steps.publish.contract import Settings

FORMAT = 1


def summary(
    settings: Settings,
    digest: str,
    passed: Sequence[Lane],
    refused: Sequence[Lane],
    paths: Mapping[str, str],
    history: History,
) -> dict[str, object]:
    """The document: verdicts, the numbers they stand on, digests and versions.

    Args:
        settings: The step's.
        digest: The bundle's; what all of this is about.
        passed: The lanes in the bundle.
        refused: The lanes left out of it.
        paths: Target → where its model lies.
        history: What is known of the steps before.
    """
    return {
        "format": FORMAT,
        "model": settings.model,
        "bundle": digest,
        "run": settings.run,
        "modelmill": modelmill.__version__,
        "lanes": {lane.target: {"path": paths[lane.target], **_lane(lane)} for lane in passed},
        "left_out": {lane.target: _lane(lane) for lane in refused},
        "unavailable": dict(settings.unavailable),
        "steps": {key: {"step": made.step, "image": made.image} for key, made in history.steps.items()},
    }


def _lane(lane: Lane) -> dict[str, object]:
    evidence, measured = lane.evidence, lane.evidence.measurements
    return {
        "verdict": evidence.verdict.value,
        "reasons": list(evidence.reasons),
        "checks": [check.model_dump(mode="json", exclude_none=True) for check in evidence.checks],
        "metric": evidence.metric.model_dump(mode="json"),
        "method": evidence.method,
        "confidence": evidence.confidence,
        "rows": evidence.rows,
        "baseline": evidence.baseline,
        "baseline_ci": list(evidence.baseline_ci),
        "candidate": evidence.candidate,
        "candidate_ci": list(evidence.candidate_ci),
        "drop_points": evidence.drop_points,
        "drop_points_ci": list(evidence.drop_points_ci),
        "against": {name.value: other.model_dump(mode="json") for name, other in evidence.against.items()},
        "precision": evidence.precision,
        "hardware_class": measured.hardware_class,
        "latency": [_cell(cell) for cell in measured.latency],
        "load_seconds": measured.load_seconds,
        "peak_rss_bytes": measured.peak_rss_bytes,
        "size_bytes": measured.size_bytes,
        "size_ratio": measured.size_ratio,
        "packages": dict(measured.packages),
        "smoke": _smoke(evidence.smoke),
        "digests": dict(evidence.digests),
    }


def _smoke(smoke: Smoke | None) -> dict[str, JSON]:
    """What the smoke test found, without its single timings and rows."""
    if smoke is None:
        return {"state": SmokeState.NOT_RUN.value}
    found: dict[str, JSON] = smoke.model_dump(
        mode="json", exclude={"format": True, "files": True, "differences": True, "latency": {"samples_ms"}}
    )
    return found


def _cell(cell: EncoderLatency) -> dict[str, JSON]:
    """A cell without its single timings, which verdict.json keeps."""
    return cell.model_dump(mode="json", exclude={"samples_ms"}, exclude_none=True)
