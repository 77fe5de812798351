"""How a run ends: its rows, its report and its record, whichever runner walked the line."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from modelmill.core import records
from modelmill.core.contract import JSON, Kind
from modelmill.core.errors import ModelmillError, OutsideError
from modelmill.core.evidence import LaneEvidence, Verdict
from modelmill.core.manifest import canonical
from modelmill.core.progress import Progress
from modelmill.core.stepkey import InputDigests, plain_inputs
from modelmill.core.store import Store
from modelmill.line import Job, Task, decide
from modelmill.recipe import Recipe
from modelmill.runners import view
from modelmill.runners.result import RunDocument, Status, StepRow, TargetRow, overall_digest


def recipe_digest(recipe: Recipe) -> str:
    """``sha256:…`` of the validated recipe."""
    return "sha256:" + hashlib.sha256(canonical(recipe.model_dump(mode="json"))).hexdigest()


def row_of(task: Task, store: Store, record: records.StepRecord, inputs: InputDigests, *, cached: bool) -> StepRow:
    """A finished task's row."""
    return StepRow(
        name=task.contract.name,
        part=task.contract.part,
        target=task.target.name if task.target else None,
        key=record.key,
        digest=overall_digest(record.outputs),
        reproducible=record.kind is Kind.REPRODUCIBLE,
        outputs={port: store.artifact_uri(at) for port, at in record.outputs.items()},
        digests=dict(record.outputs),
        inputs=plain_inputs(inputs),
        cached=cached,
        seconds=record.seconds,
        peak_rss_bytes=record.peak_rss_bytes,
        facts=dict(record.facts),
    )


def evidence_of(store: Store, verdict: str, progress: Progress) -> LaneEvidence:
    """What a gate found, from its output's digest."""
    return LaneEvidence.model_validate_json((store.get_artifact(verdict, progress) / "verdict.json").read_bytes())


def published(document: RunDocument, store: Store, effect: Mapping[str, JSON]) -> RunDocument:
    """A run's document with the bundle that publish's effect names; as it is where there was no such effect."""
    if "bundle" not in effect:
        return document
    bundle = {"bundle": store.artifact_uri(str(effect["artifact"])), "bundle_digest": effect["bundle"]}
    return document.model_copy(update={**bundle, "held": effect.get("held"), "git": effect.get("git")})


def conclude(
    job: Job,
    store: Store,
    rows: Mapping[str, StepRow],
    lanes: Mapping[str, LaneEvidence],
    document: RunDocument,
    seconds: float,
) -> RunDocument:
    """A run's document with its verdict, and its report in the store.

    Args:
        job: What was run.
        store: Keeps the report.
        rows: Task → row, in the line's order.
        lanes: Target → evidence.
        document: As it was started; where publish ran, it names the bundle.
        seconds: What the run took.
    """
    decision = decide(job.recipe, {name: lane.verdict for name, lane in lanes.items()})
    passed = decision is Verdict.PASS
    held = document.held if passed else None
    targets = {}
    for name, lane in lanes.items():
        applied = rows[f"calibrate-quantize.{name}"]
        targets[name] = TargetRow.of(lane, applied.outputs["model"], applied.digests["model"])
    report_name = f"runs/{document.run}.html"
    document = document.model_copy(
        update={
            "status": Status.HELD if held else Status.of(decision),
            "finished_at": records.utc_now(),
            "seconds": round(seconds, 3),
            "steps": list(rows.values()),
            "targets": targets,
            "bundle": document.bundle if passed else None,
            "bundle_digest": document.bundle_digest if passed else None,
            "channel": job.recipe.publish.channel if passed and not held else None,
            "held": held,
            "git": document.git if passed else None,
            "report": f"{store.uri}/{report_name}",
        }
    )
    recipe = cast("dict[str, JSON]", job.recipe.model_dump(mode="json"))
    html = view.page(document, list(lanes.values()), recipe)
    store.create(report_name, html.encode())
    return document


def ended(store: Store, run: str | None) -> RunDocument:
    """The document of a run that an orchestrator has ended.

    Args:
        store: Where the run kept it.
        run: The run's name in the store; None where no task was told one.

    Raises:
        ModelmillError: As the task that failed raised it.
        OutsideError: There is no document: the first task did not come far enough to write one.
    """
    record = records.read_run(store, run) if run else None
    if record is None:
        what = "the run ended before its first task had written down that it began"
        raise OutsideError(what, where=store.uri, fix="what is printed above says why")
    document = RunDocument.model_validate(record.document)
    if document.status is Status.RUNNING:
        # The task that writes how the run ended did not come so far.
        found = {
            "status": Status.FAILED,
            "error": document.error or "its last task did not end",
            "error_class": document.error_class or OutsideError.__name__,
        }
        document = document.model_copy(update=found)
    document.raise_error()
    return document


def interrupted(store: Store, run: str | None) -> None:
    """Keep that a person or a machine stopped an orchestrator's run; its own last task did not come to write it.

    Args:
        store: Where the run kept its document; what it does not take now is lost, as the run ends anyway.
        run: The run's name in the store; None where no task was told one.
    """

    def end(record: records.RunRecord) -> records.RunRecord:
        document = RunDocument.model_validate(record.document)
        now = datetime.now(UTC)
        seconds = (now - datetime.fromisoformat(document.started_at)).total_seconds()
        found = {"status": Status.INTERRUPTED, "finished_at": records.utc_now(), "seconds": round(seconds, 3)}
        told = {"error": "interrupted", "error_class": None}
        return record_of(document.model_copy(update={**found, **told}))

    with contextlib.suppress(ModelmillError):
        if run is not None and records.read_run(store, run) is not None:
            records.update_run(store, run, end)


def located_in(document: RunDocument, store: Store) -> RunDocument:
    """A run's document with its addresses in ``store``: a store that was copied or moved is no longer where it was."""

    def moved(uri: str | None) -> str | None:
        return store.artifact_uri("sha256:" + uri.rstrip("/").rsplit("/", 1)[-1]) if uri else None

    rows = [
        row.model_copy(update={"outputs": {port: store.artifact_uri(at) for port, at in row.digests.items()}})
        for row in document.steps
    ]
    targets = {
        name: lane.model_copy(update={"artifact": store.artifact_uri(lane.digest)})
        for name, lane in document.targets.items()
    }
    report = f"{store.uri}/runs/{document.run}.html" if document.report else None
    found = {"steps": rows, "targets": targets, "bundle": moved(document.bundle), "report": report}
    return document.model_copy(update=found)


def record_of(document: RunDocument) -> records.RunRecord:
    """The record that holds a run's document."""
    return records.RunRecord(
        run=document.run,
        recipe=document.recipe_digest,
        status=document.status.value,
        started_at=document.started_at,
        finished_at=document.finished_at,
        document=document.model_dump(mode="json"),
    )
