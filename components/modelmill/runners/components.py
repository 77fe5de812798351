"""A step as a component of somebody's own pipeline: what its ports and settings are called there.

A contract says it all; the ``component.py`` in a step's folder writes it out for kfp, and a test holds the two equal.
Settings inside settings stand side by side: ``retrain.epochs`` is ``retrain_epochs``, as in a run's form.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from modelmill.core.contract import JSON, SENSED, Closed, PortType, StepContract
from modelmill.core.documents import nearest, validate
from modelmill.core.errors import UsageError
from modelmill.line import contract_named
from modelmill.runners.parameters import alternatives_of

STORE = "store"
"""The parameter of a component that writes a registry, or reads one."""
METRICS, CLASSIFICATION, DECISION = "metrics", "classification", "decision"
"""Outputs that are no ports: numbers, a confusion matrix, and what a verdict says."""

_ARTIFACTS: Mapping[PortType, str] = {
    PortType.CHECKPOINT: "Model",
    PortType.ROWS: "Dataset",
    PortType.MODEL: "Model",
    PortType.CHOICE: "Artifact",
    PortType.PREDICTIONS: "Artifact",
    PortType.MEASUREMENTS: "Artifact",
    PortType.SMOKE: "Artifact",
    PortType.VERDICT: "Artifact",
    PortType.REPORT: "HTML",
    PortType.BUNDLE: "Model",
}
_SCALARS: Mapping[type, str] = {bool: "Boolean", int: "Integer", float: "Float", str: "String"}


@dataclass(frozen=True)
class Artifact:
    """An artifact that a component takes or makes.

    Attributes:
        name: In the component's signature.
        type: As kfp calls it: Model, Dataset, Artifact, HTML, Metrics, ClassificationMetrics.
        description: For people.
        port: The contract's port; None for what only a pipeline's page shows.
    """

    name: str
    type: str
    description: str
    port: str | None


@dataclass(frozen=True)
class Parameter:
    """A parameter of a component.

    Attributes:
        name: ``retrain_epochs``.
        path: Where its value stands in the step's settings; empty for what is no setting.
        type: As kfp calls it: String, Integer, Float, Boolean, List, Dict.
        required: Whether it has no default.
        default: The contract's; None where it is left out.
        description: For people.
        number: Whether a text that is a number is meant as one.
        chooser: The parameter that chooses among alternatives of which some have this one; empty where all have it.
        only_for: The alternatives that have it.
    """

    name: str
    path: tuple[str, ...]
    type: str
    required: bool
    default: JSON
    description: str
    number: bool = False
    chooser: str = ""
    only_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class Component:
    """A step's part as a component."""

    contract: StepContract
    inputs: tuple[Artifact, ...]
    outputs: tuple[Artifact, ...]
    decides: bool
    parameters: tuple[Parameter, ...]

    @property
    def name(self) -> str:
        """``evaluate_baseline``: the function's name."""
        return self.contract.id.replace("-", "_")


@cache
def component_of(contract: StepContract) -> Component:
    """What a contract is called in somebody's pipeline."""
    inputs = tuple(
        Artifact(port.name, _ARTIFACTS[port.type], port.description + (", of one lane" if port.many else ""), port.name)
        for port in contract.input_ports
    )
    taken = {artifact.name for artifact in inputs}
    outputs = [
        # A Python signature has each name once.
        Artifact(
            f"output_{port.name}" if port.name in taken else port.name,
            _ARTIFACTS[port.type],
            port.description,
            port.name,
        )
        for port in contract.output_ports
    ]
    made = {port.type for port in contract.output_ports}
    outputs.append(Artifact(METRICS, "Metrics", "the step's numbers", None))
    if PortType.PREDICTIONS in made:
        words = "what was predicted for rows of each label"
        outputs.append(Artifact(CLASSIFICATION, "ClassificationMetrics", words, None))
    parameters = _below(contract.settings, ())
    if contract.effect or contract.sense:
        words = "where the registry and the bundles live: s3://BUCKET/PREFIX, or a directory"
        words += "" if contract.effect else f"; with {SENSED} alone"
        parameters = [Parameter(STORE, (), "String", contract.effect is not None, None, words), *parameters]
    ordered = sorted(parameters, key=lambda item: not item.required)
    return Component(contract, inputs, tuple(outputs), PortType.VERDICT in made, tuple(ordered))


def component_named(name: str) -> Component:
    """The component of a contract's id.

    Raises:
        UsageError: There is none.
    """
    return component_of(contract_named(name, "NAME"))


def settings_of(component: Component, given: Mapping[str, JSON]) -> Closed:
    """A step's settings from a component's parameters; those left out are the contract's.

    Raises:
        UsageError: A parameter is unknown, or its value is not what the step takes.
    """
    known = {item.name: item for item in component.parameters}
    for name in given:
        if name not in known:
            near = nearest(name, list(known))
            hint = f"did you mean {near}? " if near else ""
            what = f"the step {component.contract.id} has no parameter {name!r}"
            raise UsageError(what, where=name, fix=f"{hint}They are: {', '.join(known)}")
    nested: dict[str, Any] = {}
    for item in component.parameters:
        value = given.get(item.name)
        if not item.path or not _applies(item, value, given):
            continue
        if value is None and item.required:
            what = f"the step {component.contract.id} needs the parameter {item.name}: {item.description}"
            raise UsageError(what, where=item.name, fix="give it a value")
        at = nested
        for part in item.path[:-1]:
            at = at.setdefault(part, {})
        if value is not None:
            at[item.path[-1]] = _number(value) if item.number else value
    where = f"parameters of {component.contract.id}"
    return validate(component.contract.settings, nested, where, UsageError)


def parsed(component: Component, name: str, text: str) -> JSON:
    """A parameter's value from a command line: text as it is, all else as JSON.

    Raises:
        UsageError: The text is not JSON. An unknown parameter is left for `settings_of` to name.
    """
    kind = next((item.type for item in component.parameters if item.name == name), "String")
    if kind == "String":
        return text
    try:
        return typing.cast("JSON", json.loads(text))
    except ValueError:
        what = f"the parameter {name} is {kind}, and {text!r} is not JSON"
        raise UsageError(what, where=f"--set {name}", fix="write it as JSON, such as 3, true, [1, 2] or {}") from None


def _applies(item: Parameter, value: JSON, given: Mapping[str, JSON]) -> bool:
    """Whether a parameter belongs to the alternative that is chosen; kfp passes the defaults of all."""
    chosen = given.get(item.chooser)
    if not item.chooser or chosen in item.only_for:
        return True
    if value is not None and value != item.default:
        what = f"{item.name} is set, and {item.chooser} is {chosen!r}, which has no such setting"
        fix = f"leave it out, or set {item.chooser} to {' or '.join(item.only_for)}"
        raise UsageError(what, where=item.name, fix=fix)
    return False


def _number(value: JSON) -> JSON:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _below(model: type[BaseModel], path: tuple[str, ...]) -> list[Parameter]:
    return [found for name, info in model.model_fields.items() for found in _of((*path, name), info)]


def _of(path: tuple[str, ...], info: FieldInfo) -> list[Parameter]:
    alternatives = alternatives_of(info.annotation)
    members = [item for item in alternatives if isinstance(item, type) and issubclass(item, BaseModel)]
    if info.discriminator:
        return _tagged(path, str(info.discriminator), members)
    if members and type(None) in alternatives:
        # What may be left out as a whole is one parameter: its own required fields are required only then.
        return [Parameter("_".join(path), path, "Dict", False, None, info.description or "")]
    if members:
        return _below(members[0], path)
    required = info.is_required()
    default = None if required else info.get_default(call_default_factory=True)
    kind, number = _kind(alternatives)
    if isinstance(default, Enum):
        default = default.value
    if kind == "String" and default is not None:
        default = str(default)
    name, words = "_".join(path), info.description or ""
    return [Parameter(name, path, kind, required, default, words, number)]


def _tagged(path: tuple[str, ...], tag: str, members: list[type[BaseModel]]) -> list[Parameter]:
    """The parameters of all alternatives, and the one that chooses among them."""
    tags = {get_args(member.model_fields[tag].annotation)[0]: member for member in members}
    words = ", or ".join(f"{name} ({_clause(member)})" for name, member in tags.items())
    chooser = Parameter("_".join((*path, tag)), (*path, tag), "String", True, None, words)
    found = {chooser.name: chooser}
    for name, member in tags.items():
        for item in _below(member, path):
            if item.name != chooser.name:
                both = found[item.name].only_for if item.name in found else ()
                found[item.name] = replace(item, chooser=chooser.name, only_for=(*both, name))
    return list(found.values())


def _clause(model: type[BaseModel]) -> str:
    words = (model.__doc__ or "").strip().rstrip(".")
    return words[:1].lower() + words[1:]


def _kind(alternatives: list[Any]) -> tuple[str, bool]:
    """A setting's type as kfp calls it, and whether its text may be a number."""
    found = [item for item in alternatives if item is not type(None)]
    first = found[0]
    if get_origin(first) is Literal or (isinstance(first, type) and issubclass(first, Enum)):
        return "String", False
    if get_origin(first) in {list, dict}:
        return ("List" if get_origin(first) is list else "Dict"), False
    return _SCALARS[first], len(found) > 1 and str in found
