"""What a run would do, without doing it: tasks, and what the store already holds."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from modelmill.core import records
from modelmill.core.contract import Closed
from modelmill.core.progress import Progress
from modelmill.core.stepkey import InputDigests
from modelmill.core.store import Store
from modelmill.line import Job, Task, TaskOutput, expand
from modelmill.runners import container


class State(StrEnum):
    """Whether a task's output is in the store."""

    CACHED = "yes"
    MISSING = "to do"
    UNKNOWN = "unknown until what feeds it is made"


class PlannedTask(Closed):
    """One task."""

    id: str
    step: str
    part: str | None
    target: str | None
    device: str
    key: str | None = Field(description="the step key; None where an input is not known yet")
    state: State
    feeds: dict[str, list[str]] = Field(description="input port → tasks that feed it")


class Plan(Closed):
    """All tasks in line order."""

    recipe: str
    store: str
    targets: list[str]
    tasks: list[PlannedTask]


def plan(job: Job, store: Store, progress: Progress) -> Plan:
    """Key every task whose inputs are known and look each up in the store."""
    outputs: dict[str, dict[str, str]] = {}
    tasks = []
    for task in expand(job):
        inputs = _known_inputs(task, outputs)
        key, state = None, State.UNKNOWN
        if inputs is not None:
            prepared = container.prepare(task.contract, task.settings, inputs, progress, store)
            record, _ = records.find(store, prepared.key, adopt=False)
            key, state = prepared.key, State.CACHED if record else State.MISSING
            if record:
                outputs[task.id] = dict(record.outputs)
        tasks.append(
            PlannedTask(
                id=task.id,
                step=task.contract.name,
                part=task.contract.part,
                target=task.target.name if task.target else None,
                device=task.target.device.value if task.target else "cpu",
                key=key,
                state=state,
                feeds={
                    port: [feed.task] if isinstance(feed, TaskOutput) else [at.task for at in feed.values()]
                    for port, feed in task.feeds.items()
                },
            )
        )
    names = [target.name for target in job.recipe.targets]
    return Plan(recipe=job.recipe.name, store=store.uri, targets=names, tasks=tasks)


def _known_inputs(task: Task, outputs: dict[str, dict[str, str]]) -> InputDigests | None:
    """The digests at a task's inputs, or None where one is not known yet."""
    found: dict[str, str | dict[str, str]] = {}
    for port, feed in task.feeds.items():
        wanted = {"": feed} if isinstance(feed, TaskOutput) else dict(feed)
        digests = {lane: outputs.get(at.task, {}).get(at.port) for lane, at in wanted.items()}
        if any(digest is None for digest in digests.values()):
            return None
        known = {lane: digest for lane, digest in digests.items() if digest is not None}
        found[port] = known[""] if isinstance(feed, TaskOutput) else known
    return found
