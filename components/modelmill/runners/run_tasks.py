"""The tasks that an orchestrator runs beside the line's own: a run begins, is decided and is finished."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence

from modelmill.core import records
from modelmill.core.errors import LaneError, StepKilledError, UsageError
from modelmill.core.progress import Progress
from modelmill.core.store import Store
from modelmill.line import Decision, Job, Task, TaskOutput, decide, expand, lane_error
from modelmill.recipe import Recipe, from_mapping
from modelmill.runners import findings, lanes, pointers, recorded
from modelmill.runners.conclusion import channel_of, conclude, evidence_of, verdicts_of
from modelmill.runners.containers import RECIPE_VARIABLE
from modelmill.runners.notice import tell
from modelmill.runners.parameters import decoded, parameters_of
from modelmill.runners.result import RunDocument, Status
from modelmill.runners.showing import Show

_NO_ERROR = {"error": None, "error_class": None}


def begin(store: Store, run: str, overrides: Sequence[str]) -> str:
    """Keep the recipe of the environment, overridden, and start the run's document; the recipe's digest."""
    text = os.environ.get(RECIPE_VARIABLE)
    if text is None:
        what = "the environment has no recipe"
        raise UsageError(what, where=RECIPE_VARIABLE, fix="start this task as the compiled pipeline does")
    offered = parameters_of(from_mapping(decoded(text, RECIPE_VARIABLE), [], "the run's recipe"))
    kinds = {item.path: item.type for item in offered}
    settings = [_typed(item, kinds) for item in overrides]
    recipe = from_mapping(decoded(text, RECIPE_VARIABLE), settings, "the run's recipe")
    digest = recorded.keep_recipe(store, recipe)
    record = records.read_run(store, run)
    if record is None or record.recipe != digest:
        recorded.save(store, _started(run, recipe, digest))
    else:
        # The orchestrator started the run's first task again: what the others found stays.
        recorded.update(store, run, lambda found: found.model_copy(update={"status": Status.RUNNING, **_NO_ERROR}))
    return digest


def _typed(override: str, kinds: Mapping[str, str]) -> str:
    """An override as a form gave it: the text ``123`` of a text field is no number."""
    path, equals, value = override.partition("=")
    return f"{path}{equals}{json.dumps(value)}" if kinds.get(path) == "string" else override


def _started(run: str, recipe: Recipe, digest: str) -> RunDocument:
    return RunDocument(
        run=run, recipe=recipe.name, recipe_digest=digest, status=Status.RUNNING, started_at=records.utc_now()
    )


def decide_run(store: Store, job: Job, run: str, inputs: Sequence[str], progress: Progress) -> Decision:
    """What becomes of the run, by the verdicts of its gates and the lanes that are unavailable."""
    gone = lanes.unavailable_inputs(inputs)
    judged = [text for text in inputs if text.partition("=")[0] not in gone]
    found = [evidence_of(store, pointers.output_of(store, *pointers.pointed(text)[1:]), progress) for text in judged]
    unavailable = lanes.among(recorded.read(store, run), [lanes.lane_of(gate) for gate in gone])
    decision = decide(job.recipe, verdicts_of({lane.target: lane for lane in found}), unavailable)
    progress.fact(f"the verdict is {decision.value}")
    return decision


def finish(store: Store, run: str, show: Show | None, progress: Progress) -> Status:
    """Write the report and the run's last record, and tell how it ended.

    Raises:
        ModelmillError: The run failed: an orchestrator that looks at its last task must not call it a success.
    """
    document = recorded.read(store, run)
    job = recorded.job_of(store, document.recipe_digest, run)
    rows = {row.task: row for row in document.steps}
    tasks = expand(job)
    gone = document.unavailable
    judged = {
        lane.target: lane
        for row in rows.values()
        if row.name == "gate" and row.target not in gone
        for lane in [evidence_of(store, row.digests["verdict"], progress)]
    }
    seconds = document.seconds_since_start
    waited = [task for task in tasks if task.id not in rows and lanes.lane_of(task.id) not in gone]
    missing = [task.id for task in waited if not task.node.requires_verdicts]
    decision = None if missing else decide(job.recipe, verdicts_of(judged), gone)
    if decision is Decision.PASS:
        missing = [task.id for task in waited]
    if missing or decision is Decision.UNAVAILABLE:
        ended: dict[str, object] = {"status": Status.FAILED, "finished_at": records.utc_now(), "seconds": seconds}
        if decision is Decision.UNAVAILABLE:
            ended |= {"error": str(lane_error(job.recipe, gone)), "error_class": LaneError.__name__}
        elif not document.error:
            ended |= {"error": _silent(tasks, missing), "error_class": StepKilledError.__name__}
        document = document.model_copy(update=ended)
    else:
        ordered = {task.id: rows[task.id] for task in tasks if task.id in rows}
        document = conclude(job, store, ordered, judged, document.model_copy(update=_NO_ERROR), seconds)
    recorded.save(store, document)
    shown = {"run", "recipe", "status", "channel", "held", "unavailable", "bundle", "report", "error"}
    told = document.model_dump(mode="json", include=shown)
    if problem := tell(told):
        progress.fact(problem)
    document.raise_error()
    if show is not None:
        show(findings.of_run(document, list(judged.values()), job.recipe, channel_of(store, job.recipe)))
    progress.fact(f"run {run}: {document.status.value}; report {document.report}")
    return document.status


def _silent(tasks: Sequence[Task], missing: Sequence[str]) -> str:
    """What is said of tasks that ended without a word; the others among the missing waited for them."""
    waiting = {task.id for task in tasks if any(at.task in missing for at in _fed_by(task))}
    silent = ", ".join(name for name in missing if name not in waiting) or missing[0]
    return (
        f"{silent} did not say how it ended: it was killed, most likely for want of memory, crashed, or never started; "
        "the orchestrator's log says which"
    )


def _fed_by(task: Task) -> Iterator[TaskOutput]:
    for feed in task.feeds.values():
        yield from [feed] if isinstance(feed, TaskOutput) else feed.values()
