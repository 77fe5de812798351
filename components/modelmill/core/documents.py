"""YAML that a person writes, read into closed models; what is wrong is said by file, field and fix."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from modelmill.core.errors import DeploymentError, InputError, RecipeError

T = TypeVar("T", bound=BaseModel)

MAX_BYTES = 1 << 20
MAX_REPORTED = 5
_START = {
    "recipe": "; modelmill init starts a recipe",
    "deployment": "; pipelines/deployment.yaml in modelmill's source is one to start from",
}
_DESCRIBED = {
    RecipeError: "; modelmill schema describes every field",
    DeploymentError: "; dags/README.md in modelmill's source describes every field",
}


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases or repeated keys, in which 2e-4 is a number as in YAML 1.2."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not used here", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"the key {key!r} is not text: put it in quotes"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                problem = f"the key {key!r} stands here twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str, where: str, error: type[InputError]) -> object:
    """The value of one YAML document.

    Raises:
        InputError: As ``error``: it is not YAML, repeats a key, or uses an alias; line and column are named.
    """
    try:
        # Safe: _Loader is a SafeLoader.
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        what = f"this is not valid YAML: {problem.problem}"
        raise error(what, where=place, fix="mend that line") from None
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        what = f"this is not valid YAML: {str(problem).splitlines()[0]}"
        raise error(what, where=where, fix="write it as plain YAML") from None


def read_mapping(path: Path, error: type[InputError], kind: str) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        InputError: As ``error``: the file is missing, unreadable, too large, not UTF-8, not YAML or no mapping.
    """
    try:
        if path.is_dir():
            what = f"{path} is a directory, not a {kind}"
            raise error(what, where=str(path), fix=f"name the {kind}'s YAML file")
        if path.stat().st_size > MAX_BYTES:
            what = f"a {kind} is at most {MAX_BYTES} bytes, and this file has {path.stat().st_size}"
            raise error(what, where=str(path), fix=f"name the {kind}'s YAML file")
        text = path.read_bytes().decode()
    except FileNotFoundError:
        what = f"there is no {kind} {path}"
        raise error(what, where=str(path), fix=f"check the path{_START.get(kind, '')}") from None
    except UnicodeDecodeError as problem:
        what = f"the {kind} is not UTF-8 text (byte {problem.start})"
        raise error(what, where=str(path), fix="save it as UTF-8") from None
    except OSError as problem:
        what = f"the {kind} can't be read: {problem.strerror}"
        raise error(what, where=str(path), fix="check the file's permissions") from None
    value = parse_yaml(text, str(path), error)
    if not isinstance(value, dict):
        what = f"a {kind} is a mapping of fields, and this file holds {_kind_of(value)}"
        raise error(what, where=str(path), fix=f"write the {kind}'s fields as `name: value` lines")
    return value


def _kind_of(value: object) -> str:
    names = {type(None): "nothing", list: "a list", str: "one text"}
    return names.get(type(value), f"one {type(value).__name__}")


def validate(model: type[T], value: Mapping[str, Any], where: str, error: type[InputError]) -> T:
    """``value`` as ``model``.

    Raises:
        InputError: As ``error``: every field that is wrong is named with what it should be, the first five in full.
    """
    try:
        return model.model_validate(value)
    except ValidationError as problem:
        found = _distinct(model, problem)
        lines = [describe(model, item) for item in found[:MAX_REPORTED]]
        if len(found) > MAX_REPORTED:
            lines.append(f"and {len(found) - MAX_REPORTED} more")
        first = dotted(model, found[0]["loc"])
        what = "; ".join(lines)
        fix = f"mend {'these fields' if len(found) > 1 else 'the field'}{_DESCRIBED.get(error, '')}"
        raise error(what, where=f"{where}, {first}" if first else where, fix=fix) from None


def _distinct(model: type[BaseModel], problem: ValidationError) -> list[Any]:
    """One entry a field: a union reports every member that did not fit."""
    found: dict[str, Any] = {}
    for item in problem.errors(include_url=False):
        found.setdefault(dotted(model, item["loc"]), item)
    return list(found.values())


def dotted(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """A pydantic location as a recipe path: ``targets.0.precision``; names of union members are left out."""
    parts = []
    for index, part in enumerate(location):
        member = re.search(r"[\[\](){}]|^(str|float|int|literal)$", str(part))
        tag = isinstance(part, str) and any(_has_tag(item, part) for item in _models_at(model, location[:index]))
        if not member and not tag:
            parts.append(str(part))
    return ".".join(parts)


def describe(model: type[BaseModel], item: Any) -> str:
    """One pydantic error for people: the field, what is wrong, and the nearest right name."""
    field, kind = dotted(model, item["loc"]), item["type"]
    if kind == "extra_forbidden":
        name = str(item["loc"][-1])
        known = known_fields(model, item["loc"][:-1])
        near = nearest(name, known)
        hint = f"did you mean {near}?" if near else f"known here: {', '.join(known)}"
        return f"there is no field {field!r}: {hint}"
    if kind == "missing":
        return f"the field {field!r} is missing"
    if kind in {"union_tag_not_found", "union_tag_invalid"}:
        context = item.get("ctx", {})
        tag = str(context.get("discriminator", "")).strip("'")
        expected = context.get("expected_tags", "")
        return f"{field}.{tag} must be one of {expected}" if expected else f"{field} needs the field {tag!r}"
    message = str(item["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if kind == "string_pattern_mismatch" and (form := _description(model, item["loc"])):
        message = f"does not have the form of {form}"
    # What stands in an address before the @ may be a password.
    shown = re.sub(r"//[^/@\s]*@", "//…@", repr(item["input"]))
    given = "" if kind == "value_error" else f" (given: {shown if len(shown) <= 60 else shown[:57] + '...'})"
    return f"{field or 'the document'}: {message}{given}"


def _description(model: type[BaseModel], location: tuple[int | str, ...]) -> str | None:
    """What a field's declaration says of it."""
    fields = [candidate.model_fields.get(str(location[-1])) for candidate in _models_at(model, location[:-1])]
    return next((field.description for field in fields if field is not None and field.description), None)


def nearest(name: str, known: list[str]) -> str | None:
    """The known name that a mistyped one most likely meant."""
    lowered = {item.lower().replace("-", "_"): item for item in known}
    matches = difflib.get_close_matches(name.lower().replace("-", "_"), list(lowered), n=1, cutoff=0.6)
    return lowered[matches[0]] if matches else None


def known_fields(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The fields that are known at a location of a model's document."""
    return sorted({name for candidate in _models_at(model, location) for name in candidate.model_fields})


def _models_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The models that a value at a location may be; of a tagged union the member that the location names."""
    candidates: list[type[BaseModel]] = [model]
    for part in location:
        following: list[type[BaseModel]] = []
        for candidate in candidates:
            if isinstance(part, str) and part in candidate.model_fields:
                following += models_in(candidate.model_fields[part].annotation)
        # Indices and the names of union members are steps of the location, not of the document.
        candidates = following or [item for item in candidates if _has_tag(item, part)] or candidates
    return candidates


def _has_tag(model: type[BaseModel], tag: int | str) -> bool:
    return any(tag in typing.get_args(field.annotation) for field in model.model_fields.values())


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models that an annotation names, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) is not None or isinstance(annotation, types.UnionType):
        return [found for part in typing.get_args(annotation) for found in models_in(part)]
    return []
