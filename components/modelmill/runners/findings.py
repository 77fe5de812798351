"""What people are shown of a task beside its log: small numbers, a confusion matrix, a page.

No text of the data is in it unless the recipe's ``publish.texts`` says so: an orchestrator's own storage and pages have
other readers than the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from modelmill.core.contract import JSON
from modelmill.core.evidence import LaneEvidence
from modelmill.core.progress import Progress
from modelmill.core.registry_documents import Channel
from modelmill.core.store import Store
from modelmill.recipe import Recipe
from modelmill.runners import view
from modelmill.runners.result import RunDocument

if TYPE_CHECKING:
    from modelmill.runners.confusion import Matrix

PREDICTIONS_BYTES = 64 * 2**20
"""Of a predictions artifact at most: a gate whose verdict is stored does not download a gigabyte for a picture."""


@dataclass(frozen=True)
class Findings:
    """What one task has to show; what it has not stays empty."""

    metrics: Mapping[str, str | float] = field(default_factory=dict)
    confusion: Matrix | None = None
    page: str | None = None


def of_lane(store: Store, evidence: LaneEvidence, predictions: str, progress: Progress) -> Findings:
    """What a gate shows.

    Args:
        store: Where artifacts live.
        evidence: What the gate found.
        predictions: Digest of the candidate's.
        progress: Where to report to.
    """
    return Findings(metrics=metrics_of(evidence), confusion=_confusion(store, predictions, progress))


def of_run(
    document: RunDocument, lanes: Sequence[LaneEvidence], recipe: Recipe, registered: Channel | None = None
) -> Findings:
    """What a finished run shows: its report."""
    shown = lanes if recipe.publish.texts else [lane.without_texts() for lane in lanes]
    dumped = cast("dict[str, JSON]", recipe.model_dump(mode="json"))
    return Findings(page=view.page(document, shown, dumped, registered))


def metrics_of(evidence: LaneEvidence) -> dict[str, str | float]:
    """A lane's numbers under names that stay the same from run to run, so that runs can be compared."""
    name, measured = evidence.metric.name, evidence.measurements
    low, high = evidence.drop_points_ci
    found: dict[str, str | float] = {
        "verdict": evidence.verdict.value,
        "rows": evidence.rows,
        f"{name}_baseline": evidence.baseline,
        f"{name}_candidate": evidence.candidate,
        "drop_points": evidence.drop_points,
        "drop_points_low": low,
        "drop_points_high": high,
        **_against(evidence),
        "size_ratio": measured.size_ratio,
        "size_bytes": measured.size_bytes,
        "peak_rss_bytes": measured.peak_rss_bytes,
    }
    for cell in measured.latency:
        shape = f"batch_{cell.batch_size}_length_{cell.sequence_length}"
        found[f"speedup_{shape}"] = cell.speedup
        found[f"speedup_{shape}_low"], found[f"speedup_{shape}_high"] = cell.speedup_ci
        found[f"candidate_ms_p50_{shape}"] = cell.candidate_ms_p50
    return found


def _against(evidence: LaneEvidence) -> dict[str, str | float]:
    found: dict[str, str | float] = {}
    for opponent, other in evidence.against.items():
        if other.drop_points is not None and other.drop_points_ci is not None:
            name = f"drop_vs_{opponent.value}_points"
            found[name] = other.drop_points
            found[f"{name}_low"], found[f"{name}_high"] = other.drop_points_ci
    return found


def _confusion(store: Store, predictions: str, progress: Progress) -> Matrix | None:
    manifest = store.read_manifest(predictions)
    if manifest is None or manifest.size > PREDICTIONS_BYTES:
        return None
    # The one thing here that needs numpy, which takes longer to load than a task that shows nothing takes to run.
    from modelmill.runners.confusion import matrix_of

    return matrix_of(store.get_artifact(predictions, progress))
