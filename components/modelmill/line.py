"""THE wiring: the steps and their edges, declared once.

`LINE` names the nodes. A node of scope LANE stands once for each target; an edge from such a node to one of scope RUN
merges the lanes. `expand` turns the declaration and a recipe into tasks with their settings; every runner, the plan,
the charts and the generated documents go through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

from modelmill.core import hardware
from modelmill.core.contract import JSON, Closed, StepContract
from modelmill.core.documents import nearest
from modelmill.core.errors import DeploymentError, LaneError, RecipeError, UsageError
from modelmill.core.evidence import BY_CLASS, Verdict
from modelmill.deployment import Deployment
from modelmill.recipe import Located, Recipe, Target
from modelmill.steps.calibrate_quantize import contract as calibrate_quantize
from modelmill.steps.evaluate import contract as evaluate
from modelmill.steps.export import contract as export
from modelmill.steps.fetch import contract as fetch
from modelmill.steps.gate import contract as gate
from modelmill.steps.optimize import contract as optimize
from modelmill.steps.publish import contract as publish
from modelmill.steps.retrain import contract as retrain
from modelmill.targets.base import Precision
from modelmill.targets.registry import lacks_gpu, machine_of, on_gpu, require_gpu_for_search, require_installed


class Scope(StrEnum):
    """How often a node stands in an expanded line."""

    RUN = "run"
    LANE = "lane"


@dataclass(frozen=True)
class Edge:
    """An output port of another node."""

    node: str
    port: str


@dataclass(frozen=True)
class Job:
    """What settings are derived from.

    Attributes:
        located: The recipe.
        deployment: Where it runs.
        run: The run's name.
        unavailable: Target → why its lane is unavailable: tasks that merge the lanes are given the others.
    """

    located: Located
    deployment: Deployment
    run: str | None = None
    unavailable: Mapping[str, str] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.located.recipe


@dataclass(frozen=True)
class Node:
    """One step, or one part of a step, and where its inputs come from."""

    contract: StepContract
    scope: Scope
    feeds: Mapping[str, Edge]
    run_settings: Callable[[Job], Closed] | None = None
    lane_settings: Callable[[Job, Target], Closed] | None = None
    requires_verdicts: bool = False
    """Whether the node waits for the verdicts that the recipe requires, and is skipped without them."""
    alone: bool = False
    """Whether nothing else may run on its machine meanwhile: it takes timings."""

    @property
    def id(self) -> str:
        """The contract's id: ``evaluate-baseline``."""
        return self.contract.id


def _fetch(job: Job) -> fetch.Settings:
    recipe, located = job.recipe, job.located
    data = recipe.data.model_dump(exclude={"limit", "source"})
    sliced, unit = recipe.gate.slices.by, recipe.gate.unit
    return fetch.Settings(
        task=recipe.task,
        model=fetch.ModelSource(source=located.source(recipe.model.source), sha256=recipe.model.sha256),
        data=fetch.DataSource(
            source=located.source(recipe.data.source),
            limit=recipe.data.limit.model_dump(exclude_none=True),
            keep=[*([sliced] if sliced not in {None, BY_CLASS} else []), *([unit] if unit is not None else [])],
            **data,
        ),
        mounts=job.deployment.mounts,
    )


def _retrain(job: Job) -> retrain.Settings:
    recipe = job.recipe
    return retrain.Settings(task=recipe.task, retrain=recipe.retrain, max_length=recipe.model.max_length)


def _choose(job: Job, target: Target) -> calibrate_quantize.ChooseSettings:
    return calibrate_quantize.ChooseSettings(
        task=job.recipe.task,
        runtime=target.runtime,
        precisions=target.precisions,
        scheme=target.scheme,
        search=job.recipe.search,
        bound=calibrate_quantize.Bound(
            max_drop_points=job.recipe.gate.max_drop_points,
            confidence=job.recipe.gate.confidence,
            max_size_ratio=job.recipe.gate.max_size_ratio,
            max_batch_flips=job.recipe.gate.max_batch_flips,
            metric=job.recipe.gate.metric,
            unit=job.recipe.gate.unit,
            slices=job.recipe.gate.slices.by,
        ),
        cells=job.recipe.measure.cells,
        hardware_class=target.hardware_class,
    )


def _candidate(job: Job, target: Target) -> evaluate.CandidateSettings:
    recipe, against = job.recipe, job.recipe.gate.against
    served = None
    if against:
        to = recipe.publish
        served = evaluate.ServedSettings(model=to.model, channel=to.channel, lane=target.name, against=against)
    return evaluate.CandidateSettings(task=recipe.task, runtime=target.runtime, served=served)


def _measure(job: Job, target: Target) -> evaluate.MeasureSettings:
    return evaluate.MeasureSettings(
        task=job.recipe.task,
        runtime=target.runtime,
        hardware_class=target.hardware_class,
        **job.recipe.measure.model_dump(),
    )


def _smoke(job: Job, target: Target) -> evaluate.SmokeSettings:
    recipe = job.recipe
    return evaluate.SmokeSettings(
        target=target.name,
        name=recipe.publish.model,
        runtime=target.runtime,
        mode=recipe.publish.smoke,
        sequence_length=recipe.measure.cells[0].sequence_length,
        seconds=recipe.measure.seconds_per_cell,
    )


def _gate(job: Job, target: Target) -> gate.Settings:
    policy, prices = job.recipe.gate, job.deployment.prices
    # A price is the deployment's and in no key, but for where the recipe asks for a verdict on it.
    priced = {} if prices is None or policy.max_cost_per_million_texts is None else prices.model_dump()
    return gate.Settings(task=job.recipe.task, target=target.name, policy=policy, **priced)


def _publish(job: Job) -> publish.Settings:
    recipe = job.recipe
    return publish.Settings(
        model=recipe.publish.model,
        channel=recipe.publish.channel,
        recipe=cast("dict[str, JSON]", recipe.model_dump(mode="json")),
        texts=recipe.publish.texts,
        unavailable=dict(job.unavailable),
        run=job.run,
        keyless=job.deployment.keyless,
        git=job.deployment.git,
        mirrors=job.deployment.mirrors,
    )


LINE: tuple[Node, ...] = (
    Node(fetch.STEP, Scope.RUN, {}, run_settings=_fetch),
    Node(
        retrain.STEP,
        Scope.RUN,
        {"model": Edge("fetch", "model"), "train": Edge("fetch", "train"), "tune": Edge("fetch", "tune")},
        run_settings=_retrain,
    ),
    Node(
        evaluate.BASELINE,
        Scope.RUN,
        {"checkpoint": Edge("retrain", "checkpoint"), "rows": Edge("fetch", "evaluate")},
        run_settings=lambda job: evaluate.BaselineSettings(task=job.recipe.task),
    ),
    Node(
        export.STEP,
        Scope.LANE,
        {"checkpoint": Edge("retrain", "checkpoint")},
        lane_settings=lambda job, target: export.Settings(task=job.recipe.task),
    ),
    Node(
        optimize.STEP,
        Scope.LANE,
        {"model": Edge("export", "model")},
        lane_settings=lambda job, target: optimize.Settings(task=job.recipe.task, runtime=target.runtime),
    ),
    Node(
        calibrate_quantize.CHOOSE,
        Scope.LANE,
        {
            "model": Edge("optimize", "model"),
            "calibrate": Edge("fetch", "calibrate"),
            "tune": Edge("fetch", "tune"),
        },
        lane_settings=_choose,
        alone=True,
    ),
    Node(
        calibrate_quantize.APPLY,
        Scope.LANE,
        {
            "model": Edge("optimize", "model"),
            "choice": Edge("calibrate-quantize-choose", "choice"),
            "calibrate": Edge("fetch", "calibrate"),
        },
        lane_settings=lambda job, target: calibrate_quantize.ApplySettings(
            task=job.recipe.task, runtime=target.runtime
        ),
    ),
    Node(
        evaluate.CANDIDATE,
        Scope.LANE,
        {"model": Edge("calibrate-quantize", "model"), "rows": Edge("fetch", "evaluate")},
        lane_settings=_candidate,
    ),
    Node(
        evaluate.MEASURE,
        Scope.LANE,
        {
            "checkpoint": Edge("retrain", "checkpoint"),
            "exported": Edge("export", "model"),
            "optimized": Edge("optimize", "model"),
            "candidate": Edge("calibrate-quantize", "model"),
            "rows": Edge("fetch", "evaluate"),
        },
        lane_settings=_measure,
        alone=True,
    ),
    Node(
        evaluate.SMOKE,
        Scope.LANE,
        {
            "model": Edge("calibrate-quantize", "model"),
            "predictions": Edge("evaluate-candidate", "predictions"),
            "measurements": Edge("evaluate-measure", "measurements"),
            "rows": Edge("fetch", "evaluate"),
        },
        lane_settings=_smoke,
        alone=True,
    ),
    Node(
        gate.STEP,
        Scope.LANE,
        {
            "baseline": Edge("evaluate-baseline", "predictions"),
            "candidate": Edge("evaluate-candidate", "predictions"),
            "measurements": Edge("evaluate-measure", "measurements"),
            "smoke": Edge("evaluate-smoke", "smoke"),
            "model": Edge("calibrate-quantize", "model"),
            "rows": Edge("fetch", "evaluate"),
        },
        lane_settings=_gate,
    ),
    Node(
        publish.STEP,
        Scope.RUN,
        {
            "models": Edge("calibrate-quantize", "model"),
            "choices": Edge("calibrate-quantize-choose", "choice"),
            "verdicts": Edge("gate", "verdict"),
        },
        run_settings=_publish,
        requires_verdicts=True,
    ),
)

NODES: Mapping[str, Node] = {node.id: node for node in LINE}


def contract_named(name: str, where: str) -> StepContract:
    """The contract of a step, or of its part: ``evaluate-baseline``.

    Args:
        name: Its id.
        where: Where a user wrote it.

    Raises:
        UsageError: There is none.
    """
    if name not in NODES:
        near = nearest(name, list(NODES))
        hint = f"did you mean {near}? " if near else ""
        what = f"there is no step {name!r}"
        raise UsageError(what, where=where, fix=f"{hint}The steps are: {', '.join(NODES)}")
    return NODES[name].contract


@dataclass(frozen=True)
class TaskOutput:
    """An output port of a task."""

    task: str
    port: str


Feed = TaskOutput | Mapping[str, TaskOutput]
"""What an input port is given; for a merge port, by target name."""


@dataclass(frozen=True)
class Task:
    """One node for one lane, or for the run: what an orchestrator runs as one container."""

    id: str
    node: Node
    target: Target | None
    settings: Closed
    feeds: Mapping[str, Feed] = field(default_factory=dict)

    @property
    def contract(self) -> StepContract:
        """The node's contract."""
        return self.node.contract


def expand(job: Job) -> list[Task]:
    """The tasks of a recipe in an order in which each follows what feeds it; lane by lane."""
    targets = job.recipe.targets
    tasks: list[Task] = []
    for node in _of(Scope.RUN, merging=False):
        tasks.append(_task(node, None, job, targets))
    for target in targets:
        tasks += [_task(node, target, job, targets) for node in _of(Scope.LANE)]
    for node in _of(Scope.RUN, merging=True):
        tasks.append(_task(node, None, job, targets))
    return tasks


def require_prices(job: Job) -> None:
    """Check that the deployment names the price that the recipe's gate judges by, and that it is one of all lanes.

    Raises:
        DeploymentError: It names none.
        RecipeError: A lane runs on a GPU, which has no price.
    """
    if job.recipe.gate.max_cost_per_million_texts is None:
        return
    for target in job.recipe.targets:
        if on_gpu(target.runtime):
            what = f"gate.max_cost_per_million_texts counts core-hours, and the lane {target.name} runs on a GPU"
            fix = "leave the check out, or give GPU lanes a recipe of their own"
            raise RecipeError(what, where="gate.max_cost_per_million_texts", fix=fix)
    if job.deployment.prices is None:
        what = "the recipe's gate.max_cost_per_million_texts judges a cost, and the deployment names no price"
        fix = "add prices: {core_hour: …, currency: …} to the deployment, or leave the check out of the recipe"
        raise DeploymentError(what, where="prices", fix=fix)


def require_runtimes(recipe: Recipe) -> None:
    """Check that what the recipe's targets run on is installed here.

    Raises:
        UsageError: A runtime is not.
    """
    for target in recipe.targets:
        require_installed(target.runtime, f"targets: {target.name}: runtime")


def require_machine(recipe: Recipe) -> None:
    """Check, before anything is trained, that this machine can run the lanes' own steps.

    Raises:
        HardwareError: A lane that tries candidates needs a GPU, declares another hardware class, or allows nothing but
            bf16, which the processor does not compute.
    """
    for target in recipe.targets:
        require_gpu_for_search(target.runtime, recipe.search.trials, f"targets: {target.name}: runtime")
        machine = machine_of(target.runtime)
        hardware.require_class(target.hardware_class, machine.hardware_class)
        only_bf16 = set(target.precisions) == {Precision.BF16} and not on_gpu(target.runtime)
        if only_bf16:
            hardware.require_bf16(machine.instruction_set)


def lanes_without_gpu(recipe: Recipe) -> list[str]:
    """For each lane that serves on a GPU, where this machine has none: what does and does not work here."""
    return [
        f"targets: {target.name}: the runtime {target.runtime.value} needs an NVIDIA GPU, and none is known here: its "
        "model can be made, and compiled for a GPU pool, and not be timed or answer here"
        for target in recipe.targets
        if lacks_gpu(target.runtime)
    ]


def _of(scope: Scope, merging: bool | None = None) -> list[Node]:
    found = [node for node in LINE if node.scope is scope]
    return found if merging is None else [node for node in found if _merges(node) is merging]


def _merges(node: Node) -> bool:
    return any(port.many for port in node.contract.input_ports)


def _task(node: Node, target: Target | None, job: Job, targets: Sequence[Target]) -> Task:
    feeds: dict[str, Feed] = {}
    for port in node.contract.input_ports:
        edge = node.feeds[port.name]
        if port.many:
            lanes = [lane for lane in targets if lane.name not in job.unavailable]
            feeds[port.name] = {lane.name: TaskOutput(task_id(edge.node, lane), edge.port) for lane in lanes}
        else:
            feeds[port.name] = TaskOutput(task_id(edge.node, target), edge.port)
    if target is None:
        settings = cast("Callable[[Job], Closed]", node.run_settings)(job)
    else:
        settings = cast("Callable[[Job, Target], Closed]", node.lane_settings)(job, target)
    return Task(id=task_id(node.id, target), node=node, target=target, settings=settings, feeds=feeds)


def task_id(node: str, target: Target | None) -> str:
    """``export.cpu-int8`` in a lane, ``fetch`` outside of one."""
    return f"{node}.{target.name}" if target is not None and NODES[node].scope is Scope.LANE else node


UNAVAILABLE = "unavailable"
"""What a lane is where something outside failed, so that nothing was judged: neither passed nor refused."""


class Decision(StrEnum):
    """What the lanes' verdicts come to."""

    PASS = Verdict.PASS.value
    FAIL = Verdict.FAIL.value
    INCONCLUSIVE = Verdict.INCONCLUSIVE.value
    UNAVAILABLE = UNAVAILABLE
    """A lane that is required could not be judged; running again is safe."""


def decide(recipe: Recipe, verdicts: Mapping[str, Verdict], unavailable: Mapping[str, str] | None = None) -> Decision:
    """Whether a run is promoted: what the recipe's ``publish.require`` makes of the lanes' verdicts.

    ``any``: one pass is enough. Otherwise every required lane must pass; a fail outweighs a lane that is unavailable,
    and that an inconclusive one.

    Args:
        recipe: Names the lanes that are required.
        verdicts: Target → verdict.
        unavailable: Target → why its lane has none.
    """
    lanes = {name: Decision(verdict.value) for name, verdict in verdicts.items()}
    lanes |= dict.fromkeys(unavailable or {}, Decision.UNAVAILABLE)
    require = recipe.publish.require
    if require == "any":
        found = set(lanes.values())
        order = (Decision.PASS, Decision.UNAVAILABLE, Decision.INCONCLUSIVE, Decision.FAIL)
    else:
        found = {lanes[name] for name in (lanes if require == "all" else require)}
        order = (Decision.FAIL, Decision.UNAVAILABLE, Decision.INCONCLUSIVE, Decision.PASS)
    return next(decision for decision in order if decision in found)


def lane_error(recipe: Recipe, unavailable: Mapping[str, str]) -> LaneError:
    """What is said where `decide` says that a lane which is required is unavailable."""
    require = recipe.publish.require
    named = require if isinstance(require, list) else [*unavailable]
    said = "; ".join(f"the lane {name} is unavailable ({unavailable[name]})" for name in named if name in unavailable)
    asked = ", ".join(require) if isinstance(require, list) else require
    what = f"{said}: nothing is published, since publish.require is {asked}"
    return LaneError(what, fix="mend what failed and run again: what had finished is in the store")
