"""One step as a task of somebody's own DAG."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import XComArg
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from modelmill import deployment as deployments
from modelmill.core.contract import JSON, Closed, Port, StepContract
from modelmill.core.documents import validate
from modelmill.core.errors import UsageError
from modelmill.deployment import Deployment
from modelmill.line import NODES, contract_named
from modelmill.runners.airflow import Template, operator_of
from modelmill.runners.containers import BEGIN, DECIDE, FINISH, Described, Part, describe_step

_RETURNED = "return_value"
_TASK_ID = re.compile(r"[\w.-]{1,250}")
_DIGEST = re.compile(r"(?:.*/)?(?:sha256:)?[0-9a-f]{64}/?")


def step(
    name: str,
    *,
    settings: Mapping[str, JSON],
    deployment: Deployment | Path | str,
    inputs: Mapping[str, Any] | None = None,
    task_id: str | None = None,
    device: str = "cpu",
) -> Any:
    """One step as a task of the DAG or group that is open.

    It is a pod, or a container, as the deployment says, and works on the deployment's store. Its XCom is a small
    mapping: each output port's digest, the step's ``key``, and ``facts``, the numbers and words that it found. Each of
    them is an XCom by itself, too: ``exported.output["model"]``.

    Args:
        name: The step: ``export``, ``evaluate-candidate``.
        settings: As the step's README lists them. Braces in a text stay braces: nothing in them is a template.
        deployment: Where it runs, or the file that says so.
        inputs: Input port → what holds it: a task made by this function; one of its outputs; what a task of your own
            returned, which is a digest or an artifact's address; or a digest. For a port that takes one of each
            lane, a mapping from lane to these.
        task_id: The task's; the step's name unless given.
        device: Which of the deployment's images and pools.

    Returns:
        The operator; its ``output`` is for tasks that follow.

    Raises:
        UsageError: There is no such step, or an input or a setting is not the step's.
        DeploymentError: The deployment is wrong, or lacks the device.
    """
    contract = contract_named(name, "step")
    task_id = task_id or contract.id
    where = f"step {contract.id!r}, task {task_id!r}"
    if task_id in {BEGIN, DECIDE, FINISH}:
        what = f"{task_id} is what a recipe's line calls a task of its own"
        raise UsageError(what, where=where, fix="give the task another task_id")
    if not _TASK_ID.fullmatch(task_id):
        what = f"{task_id!r} cannot name a task: letters, digits, '.', '_' and '-' can, 250 at most"
        raise UsageError(what, where=where, fix="give the task another task_id")
    deployed = deployment if isinstance(deployment, Deployment) else deployments.load(Path(deployment))
    given = _settings(contract, settings, deployed, where)
    parts, before = _inputs(contract, inputs or {}, where)
    container = describe_step(contract, given, parts, deployed, task_id, device)
    operator = operator_of(container, Described(task_id, contract.summary, (), (container,)), deployed, [])
    operator.multiple_outputs = True
    operator.modelmill_step = contract.id
    for task in before:
        task >> operator
    return operator


def _settings(contract: StepContract, settings: Mapping[str, JSON], deployed: Deployment, where: str) -> Closed:
    # What a container may read is the platform's to say, not the DAG's.
    mounts = {"mounts": list(deployed.mounts or [])} if "mounts" in contract.settings.model_fields else {}
    return validate(contract.settings, {**settings, **mounts}, f"{where}: settings", UsageError)


def _inputs(
    contract: StepContract, inputs: Mapping[str, Any], where: str
) -> tuple[dict[str, Part | dict[str, Part]], list[Any]]:
    """The input ports' values as parts of a command line, and the tasks that make them."""
    ports = {port.name: port for port in contract.input_ports}
    wrong = [*(name for name in inputs if name not in ports), *(name for name in ports if name not in inputs)]
    if wrong:
        what = f"the step {contract.id} {'has no' if wrong[0] in inputs else 'needs the'} input {wrong[0]}"
        raise UsageError(what, where=where, fix=f"give inputs for: {', '.join(ports) or 'none'}")
    parts: dict[str, Part | dict[str, Part]] = {}
    before: list[Any] = []
    for name, value in inputs.items():
        port = ports[name]
        place = f"{where}: inputs[{name!r}]"
        if port.many is not isinstance(value, Mapping):
            what = f"{name} takes {'a mapping from lane to artifact' if port.many else 'one artifact'}"
            raise UsageError(what, where=place, fix="see the step's README")
        if port.many:
            parts[name] = {lane: _part(port, item, place, before) for lane, item in value.items()}
        else:
            parts[name] = _part(port, value, place, before)
    return parts, before


def _part(port: Port, value: Any, where: str, before: list[Any]) -> Part:
    if isinstance(value, str):
        if not _DIGEST.fullmatch(value):
            what = f"{value!r} is neither a digest nor an artifact's address"
            fix = "give sha256:…, or the output of a task that makes the artifact"
            raise UsageError(what, where=where, fix=fix)
        return value
    if isinstance(value, PlainXComArg):
        operator, key = value.operator, value.key
    elif not isinstance(value, XComArg) and hasattr(value, "modelmill_step"):
        operator, key = value, _RETURNED
    else:
        what = f"{type(value).__name__} is nothing that tells an artifact's digest"
        raise UsageError(what, where=where, fix="give a step's task, its output, or what a task of yours returns")
    before.append(operator)
    made_by = getattr(operator, "modelmill_step", None)
    if made_by is not None:
        key = _output(port, NODES[made_by].contract, key, where)
    return Template(PlainXComArg(operator, key))


def _output(port: Port, made_by: StepContract, key: str, where: str) -> str:
    """The output of a step that an input takes: the one that is named, or the only one that fits."""
    outputs = {output.name: output for output in made_by.output_ports}
    fitting = [name for name, output in outputs.items() if output.type is port.type]
    if key == _RETURNED and len(fitting) == 1:
        return fitting[0]
    if key in fitting:
        return key
    said = f"its output {key}" if key in outputs else "one of its outputs" if key == _RETURNED else f"an output {key}"
    what = f"{port.name} takes a {port.type.value} artifact, and the step {made_by.id} does not give one by {said}"
    fix = f"give its output {' or '.join(fitting)}" if fitting else f"{made_by.id} makes: {', '.join(outputs)}"
    raise UsageError(what, where=where, fix=fix)
