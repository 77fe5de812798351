"""How a run ends: its rows, its report and its record, whichever runner walked the line."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import cast

from modelmill.core import records, registry
from modelmill.core.contract import JSON, Kind
from modelmill.core.errors import ModelmillError, OutsideError
from modelmill.core.evidence import LaneEvidence, Verdict
from modelmill.core.manifest import canonical
from modelmill.core.progress import Progress
from modelmill.core.registry_documents import Channel
from modelmill.core.stepkey import plain_inputs
from modelmill.core.store import Store
from modelmill.line import Decision, Job, Task, decide
from modelmill.recipe import Recipe
from modelmill.runners import view
from modelmill.runners.result import RunDocument, Status, StepRow, TargetRow, overall_digest


def recipe_digest(recipe: Recipe) -> str:
    """``sha256:…`` of the validated recipe."""
    return "sha256:" + hashlib.sha256(canonical(recipe.model_dump(mode="json"))).hexdigest()


def row_of(task: Task, store: Store, record: records.StepRecord, *, cached: bool) -> StepRow:
    """A finished task's row; what it sensed is among its inputs."""
    return StepRow(
        name=task.contract.name,
        part=task.contract.part,
        target=task.target.name if task.target else None,
        key=record.key,
        digest=overall_digest(record.outputs),
        reproducible=record.kind is Kind.REPRODUCIBLE,
        outputs={port: store.artifact_uri(at) for port, at in record.outputs.items()},
        digests=dict(record.outputs),
        inputs=plain_inputs(record.inputs),
        cached=cached,
        seconds=record.seconds,
        peak_rss_bytes=record.peak_rss_bytes,
        facts=dict(record.facts),
    )


def evidence_of(store: Store, verdict: str, progress: Progress) -> LaneEvidence:
    """What a gate found, from its output's digest."""
    return LaneEvidence.model_validate_json((store.get_artifact(verdict, progress) / "verdict.json").read_bytes())


def verdicts_of(lanes: Mapping[str, LaneEvidence]) -> dict[str, Verdict]:
    """Target → verdict, as the line decides by them."""
    return {name: lane.verdict for name, lane in lanes.items()}


def published(document: RunDocument, store: Store, effect: Mapping[str, JSON]) -> RunDocument:
    """A run's document with the bundle that publish's effect names; as it is where there was no such effect."""
    if "bundle" not in effect:
        return document
    bundle = {"bundle": store.artifact_uri(str(effect["artifact"])), "bundle_digest": effect["bundle"]}
    others = {"held": effect.get("held"), "git": effect.get("git"), "mirrors": effect.get("mirrors") or []}
    return document.model_copy(update={**bundle, **others})


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
        document: As it was started, with the lanes that are unavailable; where publish ran, it names the bundle.
        seconds: What the run took.
    """
    decision = decide(job.recipe, verdicts_of(lanes), document.unavailable)
    passed = decision is Decision.PASS
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
            "mirrors": document.mirrors if passed else [],
            "report": f"{store.uri}/{report_name}",
        }
    )
    recipe = cast("dict[str, JSON]", job.recipe.model_dump(mode="json"))
    html = view.page(document, list(lanes.values()), recipe, channel_of(store, job.recipe))
    store.create(report_name, html.encode())
    return document


def channel_of(store: Store, recipe: Recipe) -> Channel | None:
    """The channel that a recipe publishes to, for a report: one that cannot be read must not block the verdict."""
    with contextlib.suppress(ModelmillError):
        return registry.show_channel(store, recipe.publish.model, recipe.publish.channel)
    return None


def ended(store: Store, run: str | None, log: str) -> RunDocument:
    """The document of a run that an orchestrator has ended.

    Args:
        store: Where the run kept it.
        run: The run's name in the store; None where no task was told one.
        log: Where what the tasks said is to be read.

    Raises:
        ModelmillError: As the task that failed raised it.
        OutsideError: There is no document: the first task did not come far enough to write one.
    """
    record = records.read_run(store, run) if run else None
    if record is None:
        what = "the run ended before its first task had written down that it began"
        raise OutsideError(what, where=store.uri, fix=f"{log} says why")
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
    _end(store, run, {"status": Status.INTERRUPTED, "error": "interrupted", "error_class": None})


def failed(store: Store, run: str | None, problem: ModelmillError) -> None:
    """Keep that an orchestrator's run failed for a reason that none of its tasks could know.

    Args:
        store: Where the run kept its document; what it does not take now is lost.
        run: The run's name in the store; None where no task was told one.
        problem: The reason.
    """
    _end(store, run, {"status": Status.FAILED, "error": problem.what, "error_class": type(problem).__name__})


def _end(store: Store, run: str | None, told: Mapping[str, object]) -> None:
    def end(record: records.RunRecord) -> records.RunRecord:
        document = RunDocument.model_validate(record.document)
        seconds = round(document.seconds_since_start, 3)
        return record_of(document.model_copy(update={"finished_at": records.utc_now(), "seconds": seconds, **told}))

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
