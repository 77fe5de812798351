"""The line as an orchestrator runs it: each task a process that knows its run's name and its inputs' pointers.

What a task found is added to the run's record by compare-and-swap, so that ``modelmill runs show`` follows a run that
is under way, and `finish` can tell how it ended whatever became of the other tasks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelmill.core import leases, records
from modelmill.core.documents import validate
from modelmill.core.errors import DeploymentError, ModelmillError, RecipeError, StepKilledError, StoreError, UsageError
from modelmill.core.evidence import Verdict
from modelmill.core.manifest import canonical
from modelmill.core.progress import Progress
from modelmill.core.store import Store
from modelmill.deployment import Deployment, Prices
from modelmill.line import LINE, Job, Task, decide, expand
from modelmill.recipe import Located, Recipe, from_mapping
from modelmill.runners import container, findings
from modelmill.runners.conclusion import conclude, evidence_of, published, recipe_digest, record_of, row_of
from modelmill.runners.containers import BEGIN, DECIDE, FINISH, GIT_VARIABLE, RECIPE_VARIABLE
from modelmill.runners.notice import tell
from modelmill.runners.parameters import decoded, parameters_of
from modelmill.runners.result import RunDocument, Status
from modelmill.runners.showing import Show
from modelmill.steps.publish.gitops_settings import GitOps

_ATTEMPTS = 50
_NO_ERROR = {"error": None, "error_class": None}


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
        return _begin(store, run, overrides)
    if name == FINISH:
        return _finish(store, run, show, progress).value
    if recipe is None:
        what = f"the task {name} needs the recipe's digest"
        raise UsageError(what, where="--recipe", fix=f"pass what the task {BEGIN} printed")
    try:
        job = _job(store, recipe, run, mounts, folder, prices)
        if name == DECIDE:
            return _decide(store, job, inputs, progress).value
        with leases.lease(store, run):
            return _run(name, store, job, run, inputs, show, progress)
    except ModelmillError as error:
        told = {"error": f"{name}: {error}", "error_class": type(error).__name__}
        with suppress(StoreError):
            _update(store, run, lambda found: found.model_copy(update=told))
        raise


def _begin(store: Store, run: str, overrides: Sequence[str]) -> str:
    text = os.environ.get(RECIPE_VARIABLE)
    if text is None:
        what = "the environment has no recipe"
        raise UsageError(what, where=RECIPE_VARIABLE, fix="start this task as the compiled pipeline does")
    offered = parameters_of(from_mapping(decoded(text, RECIPE_VARIABLE), [], "the run's recipe"))
    kinds = {item.path: item.type for item in offered}
    settings = [_typed(item, kinds) for item in overrides]
    recipe = from_mapping(decoded(text, RECIPE_VARIABLE), settings, "the run's recipe")
    digest = recipe_digest(recipe)
    content = canonical(recipe.model_dump(mode="json"))
    store.create(f"recipes/{digest.removeprefix('sha256:')}.json", content)
    record = records.read_run(store, run)
    if record is None or record.recipe != digest:
        _save(store, _started(run, recipe, digest))
    else:
        # The orchestrator started the run's first task again: what the others found stays.
        _update(store, run, lambda found: found.model_copy(update={"status": Status.RUNNING, **_NO_ERROR}))
    return digest


def _typed(override: str, kinds: Mapping[str, str]) -> str:
    """An override as a form gave it: the text ``123`` of a text field is no number."""
    path, equals, value = override.partition("=")
    return f"{path}{equals}{json.dumps(value)}" if kinds.get(path) == "string" else override


def _started(run: str, recipe: Recipe, digest: str) -> RunDocument:
    return RunDocument(
        run=run, recipe=recipe.name, recipe_digest=digest, status=Status.RUNNING, started_at=records.utc_now()
    )


def _job(
    store: Store,
    digest: str,
    run: str,
    mounts: Sequence[str] = (),
    folder: Path | None = None,
    prices: Prices | None = None,
) -> Job:
    document = store.read(f"recipes/{digest.removeprefix('sha256:')}.json")
    if document is None:
        what = f"the store has no recipe {digest}"
        raise StoreError(what, where=store.uri, fix=f"run the task {BEGIN} of this run again")
    recipe = validate(Recipe, json.loads(document.content), f"recipe {digest}", RecipeError)
    if recipe_digest(recipe) != digest:
        what = f"the stored recipe is not the one that {digest} names"
        raise StoreError(what, where=store.uri, fix="start a new run")
    located = Located(recipe=recipe, folder=folder or Path("/"))
    told = os.environ.get(GIT_VARIABLE)
    git = validate(GitOps, decoded(told, GIT_VARIABLE), GIT_VARIABLE, DeploymentError) if told else None
    return Job(located, Deployment(store=store.uri, mounts=list(mounts), prices=prices, git=git), run)


def _run(
    name: str, store: Store, job: Job, run: str, inputs: Sequence[str], show: Show | None, progress: Progress
) -> str:
    tasks = {task.id: task for task in expand(job)}
    if name not in tasks:
        what = f"the recipe's line has no task {name!r}"
        raise UsageError(what, where="TASK", fix=f"the tasks are: {', '.join(tasks)}")
    task = tasks[name]
    digests = _digests(store, task, inputs)
    prepared = container.prepare(task.contract, task.settings, digests, progress)
    result = container.run_step(store, prepared, progress)
    progress.fact(f"{name}: {'in the store' if result.cached else 'done'}")
    row = row_of(task, store, result.record, digests, cached=result.cached)

    def add(found: RunDocument) -> RunDocument:
        rows = [*(item for item in found.steps if item.task != row.task), row]
        return published(found.model_copy(update={"steps": rows}), store, result.effect)

    _update(store, run, add)
    if show is not None and task.contract.name == "gate":
        evidence = evidence_of(store, result.record.outputs["verdict"], progress)
        show(findings.of_lane(store, evidence, str(digests["candidate"]), progress))
    return result.key


def _digests(store: Store, task: Task, inputs: Sequence[str]) -> dict[str, str | dict[str, str]]:
    merged = {port.name for port in task.contract.input_ports if port.many}
    found: dict[str, Any] = {port: {} for port in merged}
    for text in inputs:
        name, key, output = _pointed(text)
        port, _, lane = name.partition(".")
        digest = _output(store, key, output)
        if port in merged:
            found[port][lane] = digest
        else:
            found[port] = digest
    if set(found) != set(task.feeds):
        what = f"the task {task.id} takes the inputs {', '.join(task.feeds) or 'none'}"
        raise UsageError(what, where="--input", fix="give each once as PORT=KEY#OUTPUT")
    return found


def _pointed(text: str) -> tuple[str, str, str]:
    name, _, rest = text.partition("=")
    key, _, output = rest.partition("#")
    if not (name and key.startswith("sha256:") and output):
        what = f"{text!r} is not of the form PORT=KEY#OUTPUT"
        raise UsageError(what, where="--input", fix="KEY is what the task that feeds this one printed")
    return name, key, output


def _output(store: Store, key: str, port: str) -> str:
    record, reasons = records.find(store, key)
    if record is None or port not in record.outputs:
        what = f"the store does not hold the output {port!r} of {key}"
        what += f" ({'; '.join(reasons)})" if reasons else ""
        raise StoreError(
            what, where=store.uri, fix="clear the task that made it, or start the run again: it is made anew"
        )
    return record.outputs[port]


def _decide(store: Store, job: Job, inputs: Sequence[str], progress: Progress) -> Verdict:
    found = [evidence_of(store, _output(store, *_pointed(text)[1:]), progress) for text in inputs]
    decision = decide(job.recipe, {lane.target: lane.verdict for lane in found})
    progress.fact(f"the verdict is {decision.value}")
    return decision


def _finish(store: Store, run: str, show: Show | None, progress: Progress) -> Status:
    """Write the report and the run's last record, and tell how it ended.

    Raises:
        ModelmillError: The run failed: an orchestrator that looks at its last task must not call it a success.
    """
    document = _read(store, run)
    job = _job(store, document.recipe_digest, run)
    rows = {row.task: row for row in document.steps}
    tasks = expand(job)
    missing = [task.id for task in tasks if task.id not in rows and not task.node.requires_verdicts]
    lanes = {
        lane.target: lane
        for row in rows.values()
        if row.name == "gate"
        for lane in [evidence_of(store, row.digests["verdict"], progress)]
    }
    seconds = (datetime.now(UTC) - datetime.fromisoformat(document.started_at)).total_seconds()
    if not missing and decide(job.recipe, {name: lane.verdict for name, lane in lanes.items()}) is Verdict.PASS:
        missing = [task.id for task in tasks if task.id not in rows]
    if missing:
        # What ended without a word was killed, or its container never started.
        killed = {
            "error": f"these tasks did not end: {', '.join(missing)}; the orchestrator's log of the first says why",
            "error_class": StepKilledError.__name__,
        }
        ended = {"status": Status.FAILED, "finished_at": records.utc_now(), "seconds": seconds}
        document = document.model_copy(update={**ended, **({} if document.error else killed)})
    else:
        ordered = {task.id: rows[task.id] for task in tasks if task.id in rows}
        document = conclude(job, store, ordered, lanes, document.model_copy(update=_NO_ERROR), seconds)
    _save(store, document)
    shown = {"run", "recipe", "status", "channel", "held", "bundle", "report", "error"}
    told = document.model_dump(mode="json", include=shown)
    if problem := tell(told):
        progress.fact(problem)
    document.raise_error()
    if show is not None:
        show(findings.of_run(document, list(lanes.values()), job.recipe))
    progress.fact(f"run {run}: {document.status.value}; report {document.report}")
    return document.status


def _read(store: Store, run: str) -> RunDocument:
    record = records.read_run(store, run)
    if record is None:
        what = f"the store knows no run {run}"
        raise StoreError(what, where=store.uri, fix=f"run its task {BEGIN} first")
    return RunDocument.model_validate(record.document)


def _save(store: Store, document: RunDocument) -> None:
    records.save_run(store, record_of(document))


def _update(store: Store, run: str, change: Callable[[RunDocument], RunDocument]) -> None:
    """Change a run's document, whoever else changes it meanwhile."""
    records.update_run(
        store, run, lambda record: record_of(change(RunDocument.model_validate(record.document))), attempts=_ATTEMPTS
    )
