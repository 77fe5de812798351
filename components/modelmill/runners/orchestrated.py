"""The line as an orchestrator runs it: each task a process that knows its run's name and its inputs' pointers.

What a task found is added to the run's record by compare-and-swap, so that ``modelmill runs show`` follows a run that
is under way, and the run's last task can tell how it ended whatever became of the other tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from modelmill.core import leases
from modelmill.core.errors import ModelmillError, OutsideError, StoreError, UsageError
from modelmill.core.progress import Progress
from modelmill.core.store import Store
from modelmill.deployment import Prices
from modelmill.line import LINE, UNAVAILABLE, Job, expand
from modelmill.runners import container, findings, lanes, pointers, recorded, run_tasks
from modelmill.runners.conclusion import evidence_of, published, row_of
from modelmill.runners.containers import BEGIN, DECIDE, FINISH
from modelmill.runners.result import RunDocument
from modelmill.runners.showing import Show


def run_task(
    name: str,
    store: Store,
    run: str,
    *,
    recipe: str | None,
    inputs: Sequence[str],
    overrides: Sequence[str],
    mounts: Sequence[str],
    folder: Path | None = None,
    attempts: int = 1,
    prices: Prices | None = None,
    show: Show | None = None,
    progress: Progress,
) -> str:
    """Do what one container of `modelmill.runners.containers` does; what its pointer says.

    Args:
        name: The task: begin, a task of the line, decide or finish.
        store: Where artifacts live.
        run: The orchestrator's name for the run.
        recipe: The pointer that `BEGIN` gave.
        inputs: ``PORT=KEY#OUTPUT``, ``PORT.LANE=KEY#OUTPUT`` for merge ports; for `DECIDE` ``GATE=KEY#verdict``.
        overrides: ``PATH=VALUE`` for `BEGIN`.
        mounts: Directories that ``file:`` sources may lie in.
        folder: Where relative ``file:`` sources start; on a cluster there are none.
        attempts: How often the orchestrator starts a lane's task before the lane is unavailable.
        prices: What computing costs, for a gate that judges it.
        show: Takes what people are shown of the task.
        progress: Where to report to.

    Raises:
        ModelmillError: As the task raises it; the run's record holds it, too.
    """
    steps = [node.id for node in LINE]
    if name not in (BEGIN, DECIDE, FINISH) and name.partition(".")[0] not in steps:
        what = f"there is no task {name!r}"
        known = ", ".join([BEGIN, *steps, DECIDE, FINISH])
        raise UsageError(what, where="TASK", fix=f"the tasks are, with .TARGET after those of a lane: {known}")
    if name == BEGIN:
        return run_tasks.begin(store, run, overrides)
    if name == FINISH:
        return run_tasks.finish(store, run, show, progress).value
    if recipe is None:
        what = f"the task {name} needs the recipe's digest"
        raise UsageError(what, where="--recipe", fix=f"pass what the task {BEGIN} printed")
    lane = lanes.lane_of(name)
    if lane and lanes.unavailable_inputs(inputs):
        return _passed_on(store, run, name, progress)
    attempt: int | None = None
    try:
        job = recorded.job_of(store, recipe, run, mounts, folder, prices)
        if name == DECIDE:
            return run_tasks.decide_run(store, job, run, inputs, progress).value
        if lane:
            attempt = recorded.update(store, run, lambda found: lanes.begun(found, name, attempts)).attempts[name]
        with leases.lease(store, run):
            return _run(name, store, job, run, inputs, show, progress)
    except ModelmillError as error:
        if isinstance(error, OutsideError) and attempt == attempts and _given_up(store, run, name, error):
            progress.fact(f"the lane {lane} is unavailable: {error}")
            return UNAVAILABLE
        told = {"error": f"{name}: {error}", "error_class": type(error).__name__}
        with suppress(StoreError):
            recorded.update(store, run, lambda found: found.model_copy(update=told))
        raise


def _passed_on(store: Store, run: str, name: str, progress: Progress) -> str:
    lane = lanes.lane_of(name)
    why = lanes.among(recorded.read(store, run), [lane])[lane]
    recorded.update(store, run, lambda found: lanes.ended_unavailable(found, name, why))
    progress.fact(f"the lane {lane} is unavailable ({why})")
    return UNAVAILABLE


def _given_up(store: Store, run: str, name: str, error: OutsideError) -> bool:
    """Keep that a lane is unavailable; whether the store, which may be what failed, takes it."""
    why = lanes.reason_of(name, error)
    try:
        recorded.update(store, run, lambda found: lanes.ended_unavailable(found, name, why))
    except StoreError:
        return False
    return True


def _run(
    name: str, store: Store, job: Job, run: str, inputs: Sequence[str], show: Show | None, progress: Progress
) -> str:
    tasks = {task.id: task for task in expand(job)}
    if name not in tasks:
        what = f"the recipe's line has no task {name!r}"
        raise UsageError(what, where="TASK", fix=f"the tasks are: {', '.join(tasks)}")
    task = tasks[name]
    if missing := lanes.unavailable_inputs(inputs):
        gone = lanes.among(recorded.read(store, run), [lanes.lane_of(port) for port in missing])
        inputs = lanes.without(inputs, gone)
        (task,) = (other for other in expand(replace(job, unavailable=gone)) if other.id == name)
    digests = pointers.digests_of(store, task, inputs)
    prepared = container.prepare(task.contract, task.settings, digests, progress, store)
    result = container.run_step(store, prepared, progress)
    progress.fact(f"{name}: {'in the store' if result.cached else 'done'}")
    row = row_of(task, store, result.record, cached=result.cached)

    def add(found: RunDocument) -> RunDocument:
        rows = [*(item for item in found.steps if item.task != row.task), row]
        return published(found.model_copy(update={"steps": rows}), store, result.effect)

    recorded.update(store, run, add)
    if show is not None and task.contract.name == "gate":
        evidence = evidence_of(store, result.record.outputs["verdict"], progress)
        show(findings.of_lane(store, evidence, str(digests["candidate"]), progress))
    return result.key
