"""The run-time fields of a recipe as an orchestrator's form offers them."""

from __future__ import annotations

import base64
import json
import os
import types
import typing
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import quote, unquote_to_bytes

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from modelmill.core.contract import JSON, Closed
from modelmill.core.errors import RecipeError
from modelmill.core.manifest import canonical
from modelmill.recipe import Located, Recipe, structural_fields

PLACEHOLDER = "{{$"
"""What Kubeflow's placeholders begin with: its backend replaces them in commands, and in the values that go there."""
_PLAIN = "/:@,;=+~!'()*& "
"""What stays as it is in a path, besides letters, digits and ``-._``."""
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


@dataclass(frozen=True)
class Parameter:
    """One run-time field.

    Attributes:
        name: What a form calls it: ``gate_max_drop_points``.
        path: What ``--set`` calls it: ``gate.max_drop_points``.
        type: string, integer, number or boolean, as JSON schema has them.
        default: The recipe's value.
        description: For people.
        schema: Further JSON schema: bounds, enum.
    """

    name: str
    path: str
    type: str
    default: str | int | float | bool
    description: str
    schema: dict[str, JSON] = field(default_factory=dict)


def parameters_of(recipe: Recipe) -> tuple[Parameter, ...]:
    """The run-time fields that hold one value, in the recipe's order.

    Fields that hold a mapping, a list or nothing are left as the recipe has them: no form of both orchestrators has
    them, and nothing is no value that Kubeflow passes on. So is a text in which Kubeflow would replace something: it
    has no sign that keeps it from that.
    """
    structural = structural_fields()
    found: list[Parameter] = []
    for name in type(recipe).model_fields:
        if name not in structural:
            found += _below(getattr(recipe, name), (name,), type(recipe).model_fields[name])
    return tuple(found)


def _below(value: object, path: tuple[str, ...], info: FieldInfo) -> list[Parameter]:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return [item for name in fields for item in _below(getattr(value, name), (*path, name), fields[name])]
    plain = value.value if isinstance(value, Enum) else value
    kind = _TYPES.get(type(plain))
    # What a union is told apart by is no choice of a run: its other fields would not be there.
    if kind is None or path == ("retrain", "method") or (isinstance(plain, str) and PLACEHOLDER in plain):
        return []
    schema = _schema(info)
    if float in alternatives_of(info.annotation) and kind == "integer":
        kind, plain = "number", float(typing.cast("int", plain))
    assert isinstance(plain, str | int | float)
    return [Parameter("_".join(path), ".".join(path), kind, plain, info.description or "", schema)]


def alternatives_of(annotation: Any) -> list[Any]:
    """The types that an annotation allows, those of its unions one by one."""
    if get_origin(annotation) is Annotated:
        return alternatives_of(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        return [found for item in get_args(annotation) for found in alternatives_of(item)]
    return [annotation]


def _schema(info: FieldInfo) -> dict[str, JSON]:
    found: dict[str, JSON] = {}
    for constraint in info.metadata:
        for name, word in _BOUNDS.items():
            bound = getattr(constraint, name, None)
            if bound is not None:
                found[word] = bound
        pattern = getattr(constraint, "pattern", None)
        if isinstance(pattern, str):
            found["pattern"] = pattern
    alternatives = alternatives_of(info.annotation)
    literals = [item for item in alternatives if get_origin(item) is Literal]
    if literals and len(literals) == len(alternatives):
        found["enum"] = [value for item in literals for value in get_args(item)]
    elif len(alternatives) == 1 and isinstance(alternatives[0], type) and issubclass(alternatives[0], Enum):
        found["enum"] = [item.value for item in alternatives[0]]
    return found


def encoded(document: Closed) -> str:
    """A recipe, or settings, as one word of letters and digits, in which nothing can be taken for a template."""
    return base64.urlsafe_b64encode(canonical(document.model_dump(mode="json"))).decode()


def decoded(text: str, where: str) -> dict[str, Any]:
    """What `encoded` was given, not yet validated.

    Raises:
        RecipeError: It is no such word.
    """
    try:
        value = json.loads(base64.urlsafe_b64decode(text.encode()))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        what = "what was encoded there cannot be read"
        raise RecipeError(what, where=where, fix="compile the pipeline again, or let the DAG be parsed again")
    return value


def path_word(path: str) -> str:
    """A path as an argument in which nothing can be taken for a template: percent-encoded, RFC 3986, section 2.1."""
    return quote(os.fsencode(path), safe=_PLAIN)


def path_of_word(text: str) -> str:
    """What `path_word` was given."""
    return os.fsdecode(unquote_to_bytes(text))


def for_cluster(located: Located) -> Recipe:
    """The recipe as a cluster can run it.

    Raises:
        RecipeError: A source is a path from the recipe's folder, which no pod has.
    """
    recipe = located.recipe
    for name, source in relative_sources(recipe).items():
        what = f"{source} is a path from the recipe's folder, and no container has that folder"
        fix = f"put it into the store (modelmill push {located.source(source).removeprefix('file:')} --store URI), "
        fix += "and name the s3:// address that is printed"
        raise RecipeError(what, where=f"{located.path or 'recipe'}: {name}", fix=fix)
    return recipe


def relative_sources(recipe: Recipe) -> dict[str, str]:
    """The sources that are paths from the recipe's folder, by field."""
    sources = {"model.source": recipe.model.source, "data.source": recipe.data.source}
    found = {name: source for name, source in sources.items() if source.startswith("file:")}
    # As `Located.source` reads them: file://model is model in the recipe's folder.
    paths = {name: source.removeprefix("file:").removeprefix("//") for name, source in found.items()}
    return {name: found[name] for name, path in paths.items() if not path.startswith("/")}
