"""All of the line on this machine, one task after another.

Tasks run in line order: timings must be taken alone, and two cores gain nothing from two trainings at once. Each task
that is not in the store runs in a process of its own (`modelmill.runners.process`).
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import cast

from modelmill.core import evidence, leases, records
from modelmill.core.contract import JSON
from modelmill.core.errors import CorruptArtifactError, ModelmillError, OutsideError
from modelmill.core.progress import Progress
from modelmill.core.stepkey import InputDigests
from modelmill.core.store import Store
from modelmill.line import (
    Decision,
    Job,
    Task,
    TaskOutput,
    decide,
    expand,
    lane_error,
    lanes_without_gpu,
    require_machine,
    require_prices,
    require_runtimes,
)
from modelmill.runners import container
from modelmill.runners.conclusion import conclude, evidence_of, published, recipe_digest, record_of, row_of, verdicts_of
from modelmill.runners.lanes import reason_of
from modelmill.runners.process import StepCommand, StepOutcome, run_in_process
from modelmill.runners.result import RunDocument, Status, StepRow

MAX_REPAIRS = 8
"""Damaged inputs that one run makes anew before it gives up: a disk that loses more is no store."""


@dataclass
class _Walk:
    """What is known while a run walks its tasks."""

    rows: dict[str, StepRow] = field(default_factory=dict)
    verdicts: dict[str, evidence.LaneEvidence] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    """Target → what failed outside; nothing more of its lane is run."""
    effect: Mapping[str, JSON] = field(default_factory=dict)
    task: str | None = None
    """The task that runs."""
    started: Callable[[], object] | None = None
    """Called once, when the first task has finished."""


def new_run_id() -> str:
    """A sortable name: UTC time and a few random digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


Execute = Callable[[StepCommand], StepOutcome]
"""What runs a step that is not in the store."""


def run(job: Job, store: Store, progress: Progress, execute: Execute = run_in_process) -> RunDocument:
    """Run a recipe's line and keep the run's document and report in the store.

    Args:
        job: The recipe and where it runs.
        store: Where artifacts live.
        progress: Where to report to.
        execute: Runs one step; in a process of its own unless told otherwise.

    Returns:
        The finished run: promoted, refused or inconclusive.

    Raises:
        ModelmillError: A task failed; the run's document says so, and what had finished stays in the store.
    """
    name = new_run_id()
    job = Job(located=job.located, deployment=job.deployment, run=name)
    started = time.monotonic()
    document = RunDocument(
        run=name,
        recipe=job.recipe.name,
        recipe_digest=recipe_digest(job.recipe),
        status=Status.RUNNING,
        started_at=records.utc_now(),
    )
    walk = _Walk()
    try:
        with contextlib.ExitStack() as stack:
            # Not before a first task has finished: wrong input leaves a store as it was.
            walk.started = lambda: stack.enter_context(leases.lease(store, name))
            _walk_repairing(job, store, progress, walk, execute)
            document = published(document, store, walk.effect).model_copy(update={"unavailable": walk.unavailable})
            document = conclude(job, store, walk.rows, walk.verdicts, document, time.monotonic() - started)
            records.save_run(store, record_of(document))
    except (ModelmillError, KeyboardInterrupt) as error:
        status = Status.INTERRUPTED if isinstance(error, KeyboardInterrupt) else Status.FAILED
        _keep_ended(store, walk, document, status, error, time.monotonic() - started)
        raise
    return document


def _walk_repairing(job: Job, store: Store, progress: Progress, walk: _Walk, execute: Execute) -> None:
    """Walk all tasks; where an input turns out damaged, drop it and walk again: its maker makes it anew."""
    for _ in range(MAX_REPAIRS):
        try:
            _walk_tasks(job, store, progress, walk, execute)
        except CorruptArtifactError as error:
            made_by = next((row.name for row in walk.rows.values() if error.digest in row.digests.values()), None)
            if made_by is None:
                raise
            progress.fact(f"an output of {made_by} is damaged and made again: {error.what}")
            store.delete_artifact(error.digest)
        else:
            return
    what = f"{MAX_REPAIRS} outputs of this run were damaged after they were stored"
    raise CorruptArtifactError(what, digest="", where=store.uri)


def _walk_tasks(job: Job, store: Store, progress: Progress, walk: _Walk, execute: Execute) -> None:
    require_prices(job)
    require_runtimes(job.recipe)
    require_machine(job.recipe)
    for missing in lanes_without_gpu(job.recipe):
        progress.fact(missing)
    walk.rows.clear()
    walk.verdicts.clear()
    walk.unavailable.clear()
    for task in expand(job):
        lane = task.target.name if task.target else None
        if lane in walk.unavailable:
            continue
        if task.node.requires_verdicts:
            decision = decide(job.recipe, verdicts_of(walk.verdicts), walk.unavailable)
            if decision is Decision.UNAVAILABLE:
                raise lane_error(job.recipe, walk.unavailable)
            if decision is not Decision.PASS:
                progress.fact(f"{task.id}: skipped, the verdict is {decision.value}")
                continue
            (task,) = (other for other in expand(replace(job, unavailable=walk.unavailable)) if other.id == task.id)
        walk.task = task.id
        try:
            _run_task(task, store, progress, walk, execute)
        except CorruptArtifactError:
            raise
        except OutsideError as error:
            if lane is None:
                raise
            walk.unavailable[lane] = reason_of(task.id, error)
            progress.fact(f"the lane {lane} is unavailable: {task.id}: {error}")
            walk.task = None
            continue
        walk.task = None
        if task.contract.name == "gate" and task.target is not None:
            walk.verdicts[task.target.name] = evidence_of(store, walk.rows[task.id].digests["verdict"], progress)


def inputs_of(task: Task, rows: Mapping[str, StepRow]) -> InputDigests:
    """The digests at a task's input ports, from the rows of the tasks that feed it."""

    def digest(output: TaskOutput) -> str:
        return rows[output.task].digests[output.port]

    return {
        port: digest(feed) if isinstance(feed, TaskOutput) else {lane: digest(at) for lane, at in feed.items()}
        for port, feed in task.feeds.items()
    }


def _run_task(task: Task, store: Store, progress: Progress, walk: _Walk, execute: Execute) -> None:
    inputs = inputs_of(task, walk.rows)
    prepared = container.prepare(task.contract, task.settings, inputs, progress, store)
    record, notes = container.find(store, prepared)
    cached = record is not None
    if record is not None:
        effect = container.effect_of(store, prepared, record.outputs, progress)
        progress.fact(f"{task.id}: in the store")
    else:
        for note in notes:
            progress.fact(note)
        progress.fact(f"{task.id}: running")
        settings = cast("Mapping[str, JSON]", prepared.settings.model_dump(mode="json"))
        outcome = execute(StepCommand(task.contract.id, store.uri, settings, inputs))
        outcome.raise_error()
        record, effect, cached = cast("records.StepRecord", outcome.record), outcome.effect, outcome.cached
        progress.fact(f"{task.id}: done in {record.seconds:.1f} s, peak memory {record.peak_rss_bytes / 2**20:.0f} MiB")
    row = row_of(task, store, record, cached=cached)
    walk.rows[task.id] = row
    if walk.started is not None:
        walk.started()
        walk.started = None
    walk.effect = effect or walk.effect


def _keep_ended(
    store: Store, walk: _Walk, document: RunDocument, status: Status, error: BaseException, seconds: float
) -> None:
    """Keep the document of a run that did not finish, where the store still answers and there is anything to keep."""
    if not walk.rows:
        return
    ended = document.model_copy(
        update={
            "status": status,
            "finished_at": records.utc_now(),
            "seconds": round(seconds, 3),
            "steps": list(walk.rows.values()),
            "unavailable": walk.unavailable,
            "error": (f"{walk.task}: " if walk.task else "") + (str(error) or "interrupted"),
            "error_class": type(error).__name__ if isinstance(error, ModelmillError) else None,
        }
    )
    with contextlib.suppress(ModelmillError):
        records.save_run(store, record_of(ended))
