"""The recipe: the one YAML file in which a user says what they want.

A field marked structural shapes the pipeline itself and is compiled in; every other field may change from run to run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic.config import JsonDict

from modelmill.core.contract import Closed
from modelmill.core.documents import known_fields, nearest, parse_yaml, read_mapping, validate
from modelmill.core.errors import RecipeError
from modelmill.core.evidence import Cell
from modelmill.core.s3_address import BUCKET, BUCKET_IN_WORDS
from modelmill.step_settings import known_task
from modelmill.steps.calibrate_quantize.contract import Scheme, Search
from modelmill.steps.calibrate_quantize.space import schemes_of
from modelmill.steps.evaluate.contract import SmokeMode
from modelmill.steps.gate.contract import Policy
from modelmill.steps.retrain.contract import FineTune, Method
from modelmill.targets.base import Device, Precision, Runtime
from modelmill.targets.registry import RUNTIMES
from modelmill.tasks import registry as tasks

SCHEMES = ("package:", "hf://", "s3://", "file:")
NAME = r"^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$"
STRUCTURAL: JsonDict = {"structural": True}

Name = Annotated[str, Field(pattern=NAME, description="lower-case letters, digits, '.', '_' and '-', 63 at most")]


def _check_source(source: str) -> str:
    scheme = next((item for item in SCHEMES if source.startswith(item)), None)
    if scheme is None:
        problem = f"{source!r} names no source: start it with one of {', '.join(SCHEMES)}"
        raise ValueError(problem)
    rest = source.removeprefix(scheme)
    if not rest.strip() or "\0" in rest or "\n" in rest:
        problem = f"{source!r} names nothing after {scheme}"
        raise ValueError(problem)
    if scheme == "hf://" and not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", rest):
        problem = f"{source!r} is not of the form hf://ORG/NAME@REVISION"
        raise ValueError(problem)
    if scheme == "s3://" and not re.fullmatch(rf"{BUCKET}(/.*)?", rest):
        problem = f"{source!r} is not of the form s3://BUCKET/PREFIX; {BUCKET_IN_WORDS}"
        raise ValueError(problem)
    return source


class ModelSpec(Closed):
    """The model to start from."""

    source: str = Field(description="package:NAME/PATH, hf://ORG/NAME@REVISION, s3://BUCKET/PREFIX or file:PATH")
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(
        default_factory=dict, description="file → sha256 that it must have"
    )
    max_length: int | None = Field(
        None,
        ge=2,
        le=131072,
        description="tokens at which a text is cut, special ones included; default: the model's",
    )

    _source = field_validator("source")(_check_source)


class Limit(Closed):
    """Rows at most, by role."""

    train: int | None = Field(None, ge=1, description="rows to train on, at most")
    tune: int | None = Field(None, ge=1, description="rows for early stopping and search, at most")
    calibrate: int | None = Field(None, ge=1, description="rows for calibration, at most")
    evaluate: int | None = Field(None, ge=1, description="rows that judge, at most")


def _share_or_split(value: object) -> object:
    if isinstance(value, bool):
        problem = "give a split's name, or a share of train between 0 and 1"
        raise ValueError(problem)
    if isinstance(value, int | float) and not 0 < value < 1:
        problem = f"the share {value} is not between 0 and 1"
        raise ValueError(problem)
    return value


class DataSpec(Closed):
    """The rows, and what each part of them is for."""

    source: str = Field(description="a folder of splits: file:PATH, hf://ORG/NAME@REVISION, s3://… or package:…")
    reader: Literal["files", "botocore-operations"] = Field(
        "files",
        description="files: .jsonl, .jsonl.gz, .csv, .parquet; botocore-operations: texts of service models",
    )
    columns: dict[str, str] = Field(default_factory=dict, description="the task's column → the data's column")
    train: str = Field("train", min_length=1, description="split to train on")
    tune: Annotated[str | float, BeforeValidator(_share_or_split)] = Field(
        0.15, description="a split, or a share held out from train: early stopping and search"
    )
    calibrate: str = Field("train", min_length=1, description="split whose activations set quantization ranges")
    evaluate: str = Field("test", min_length=1, description="split that judges: read by evaluate and gate alone")
    limit: Limit = Field(default_factory=lambda: Limit.model_validate({}), description="rows at most, by role")
    seed: int = Field(0, ge=0, lt=2**32, description="chooses the held-out rows and the limited ones")

    _source = field_validator("source")(_check_source)

    @field_validator("columns")
    @classmethod
    def _columns_are_apart(cls, value: dict[str, str]) -> dict[str, str]:
        for column in value.values():
            twice = [name for name, other in value.items() if other == column]
            if len(twice) > 1:
                problem = f"the data's column {column!r} is given as {' and as '.join(twice)}"
                raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _judges_are_apart(self) -> DataSpec:
        for role in ("train", "tune", "calibrate"):
            if getattr(self, role) == self.evaluate:
                problem = (
                    f"evaluate and {role} are the same split {self.evaluate!r}: rows that choose a model never judge it"
                )
                raise ValueError(problem)
        return self


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _listed(names: Sequence[StrEnum]) -> str:
    return ", ".join(name.value for name in names)


def _any_precision() -> list[Precision | Literal["auto"]]:
    return ["auto"]


class Target(Closed):
    """Where a model will serve: one lane of the line."""

    name: Name
    device: Device = Field(Device.CPU, description="cpu or gpu")
    runtime: Runtime = Field(Runtime.ONNXRUNTIME, description="what runs the model")
    precision: Annotated[list[Precision | Literal["auto"]], BeforeValidator(_as_list)] = Field(
        default_factory=_any_precision, min_length=1, description="one, a list of allowed ones, or auto"
    )
    scheme: Scheme | None = Field(None, description="dynamic or static int8; left out, the line chooses")
    hardware_class: str | None = Field(
        None, description="the machine that measurements must come from, as a report names it; left out, any"
    )

    @model_validator(mode="after")
    def _is_offered(self) -> Target:
        offered = RUNTIMES[self.runtime]
        if self.device != offered.device:
            problem = f"the runtime {self.runtime.value} runs on {offered.device.value}, not on {self.device.value}"
            raise ValueError(problem)
        if "auto" in self.precision and len(self.precision) > 1:
            problem = "precision auto stands alone: it allows all that the runtime serves"
            raise ValueError(problem)
        served = offered.precisions
        for precision in self.precisions:
            if precision not in served:
                problem = (
                    f"the runtime {self.runtime.value} does not serve {precision.value}; it serves {_listed(served)}"
                )
                raise ValueError(problem)
        self._has_scheme()
        return self

    def _has_scheme(self) -> None:
        if self.scheme is None:
            return
        schemes = schemes_of(self.runtime, RUNTIMES[self.runtime].precisions)
        if self.scheme not in schemes:
            problem = f"the runtime {self.runtime.value} has no scheme {self.scheme.value}; it has {_listed(schemes)}"
            raise ValueError(problem)
        if self.scheme not in schemes_of(self.runtime, self.precisions):
            if self.scheme is Scheme.NONE:
                problem = f"the scheme none gives none of the allowed precisions ({_listed(self.precisions)})"
            else:
                problem = f"the scheme {self.scheme.value} is int8, which precision does not allow"
            raise ValueError(problem)

    @property
    def precisions(self) -> list[Precision]:
        """The precisions allowed, ``auto`` spelled out."""
        if "auto" in self.precision:
            return list(RUNTIMES[self.runtime].precisions)
        return [Precision(item) for item in self.precision]


class MeasureSpec(Closed):
    """What evaluate times."""

    cells: list[Cell] = Field(
        default_factory=lambda: [
            Cell(batch_size=1, sequence_length=128),
            Cell(batch_size=1, sequence_length=32),
            Cell(batch_size=8, sequence_length=128),
        ],
        min_length=1,
        description="shapes of input; the first is what min_speedup judges",
    )
    seconds_per_cell: float = Field(6.0, gt=0, le=600, description="time budget of a cell, all models together")
    processes: int = Field(
        3,
        ge=1,
        le=10,
        description="fresh processes that share a cell's time budget: intervals cover what differs between them; "
        "1: one process alone",
    )
    throughput_rows: int = Field(512, ge=0, description="evaluation texts timed at their real lengths; 0: none")


def _off_as_named(value: object) -> object:
    """YAML 1.1 reads ``off`` as false."""
    return SmokeMode.OFF if value is False else value


class PublishSpec(Closed):
    """Where a passed model goes."""

    model: Name
    channel: Name = "staging"
    require: Literal["all", "any"] | list[str] = Field(
        "all", description="lanes that must pass: all, any, or their names"
    )
    texts: bool = Field(False, description="whether texts of the data may stand in the bundle's report")
    smoke: Annotated[SmokeMode, BeforeValidator(_off_as_named)] = Field(
        SmokeMode.IF_AVAILABLE,
        description="whether each lane is tried in a real server first: required, if-available (where "
        "MODELMILL_TRITON names one), or off",
    )


class Recipe(Closed):
    """What a user wants of the line."""

    name: Name = Field(json_schema_extra=STRUCTURAL)
    task: str = Field(json_schema_extra=STRUCTURAL, description="the ML task")
    model: ModelSpec
    data: DataSpec
    retrain: Method = Field(default_factory=lambda: FineTune(method="fine-tune"), description="how weights are trained")
    targets: list[Target] = Field(
        default_factory=lambda: [Target(name="cpu")],
        min_length=1,
        max_length=32,
        json_schema_extra=STRUCTURAL,
        description="where the model will serve; one lane each",
    )
    search: Search = Field(
        default_factory=lambda: Search.model_validate({}), description="how long to look for the fastest candidate"
    )
    measure: MeasureSpec = Field(default_factory=lambda: MeasureSpec.model_validate({}), description="what is timed")
    gate: Policy = Field(default_factory=lambda: Policy.model_validate({}), description="what a candidate must meet")
    publish: PublishSpec

    @model_validator(mode="before")
    @classmethod
    def _publish_as_named(cls, value: Any) -> Any:
        if isinstance(value, dict) and "publish" not in value and isinstance(value.get("name"), str):
            return {**value, "publish": {"model": value["name"]}}
        return value

    _task = field_validator("task")(known_task)

    @model_validator(mode="after")
    def _names_agree(self) -> Recipe:
        names = [target.name for target in self.targets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            problem = f"targets: two are named {twice[0]!r}"
            raise ValueError(problem)
        judging = self.data.limit.evaluate
        if judging is not None and judging < self.gate.min_rows:
            problem = (
                f"data.limit.evaluate leaves {judging} rows to judge by, and gate.min_rows demands {self.gate.min_rows}"
            )
            raise ValueError(problem)
        judged = [metric.name for metric in tasks.get(self.task).metrics_judged]
        if self.gate.metric is not None and self.gate.metric not in judged:
            near = nearest(self.gate.metric, judged)
            hint = f"did you mean {near}?" if near else f"known: {', '.join(judged)}"
            problem = f"gate.metric: the task {self.task} has no metric {self.gate.metric!r} to judge by: {hint}"
            raise ValueError(problem)
        if self.gate.unit is not None and self.gate.slices.by is not None:
            problem = "gate.unit names rows that belong together, and gate.slices tests rows that stand for themselves"
            raise ValueError(problem)
        if self.gate.max_cost_per_million_texts is not None and self.measure.throughput_rows == 0:
            problem = "gate.max_cost_per_million_texts is of measured texts, and measure.throughput_rows is 0"
            raise ValueError(problem)
        if isinstance(self.publish.require, list):
            unknown = [name for name in self.publish.require if name not in names]
            if unknown or not self.publish.require:
                problem = f"publish.require names {unknown or 'nothing'}; the targets are {', '.join(names)}"
                raise ValueError(problem)
        for column in self.data.columns:
            task = tasks.get(self.task)
            allowed = [*task.required_columns, *task.optional_columns]
            if column not in allowed:
                near = nearest(column, allowed)
                hint = f"did you mean {near}?" if near else f"known: {', '.join(allowed)}"
                problem = f"data.columns: the task {self.task} has no column {column!r}: {hint}"
                raise ValueError(problem)
        return self


class Located(Closed):
    """A recipe and the folder that its relative paths start from."""

    recipe: Recipe
    folder: Path
    path: Path | None = None

    def source(self, source: str) -> str:
        """A source with its ``file:`` path made absolute."""
        if not source.startswith("file:"):
            return source
        path = Path(source.removeprefix("file:").removeprefix("//")).expanduser()
        return f"file:{(self.folder / path).resolve()}"


def load(path: Path, overrides: Sequence[str] = ()) -> Located:
    """Read and validate a recipe.

    Args:
        path: The YAML file.
        overrides: ``PATH=VALUE`` settings of run-time fields, applied in order.

    Raises:
        RecipeError: The file or an override is wrong.
    """
    recipe = from_mapping(read_mapping(path, RecipeError, "recipe"), overrides, str(path))
    return Located(recipe=recipe, folder=path.resolve().parent, path=path)


def from_mapping(value: dict[str, Any], overrides: Sequence[str], where: str) -> Recipe:
    """A recipe from its fields, with ``PATH=VALUE`` settings applied to them in place.

    Raises:
        RecipeError: A field or an override is wrong.
    """
    for override in overrides:
        _apply(value, override)
    return validate(Recipe, value, where if not overrides else f"{where} with --set", RecipeError)


def structural_fields() -> list[str]:
    """The recipe's fields that are compiled in."""
    return [
        name for name, field in Recipe.model_fields.items() if isinstance(field.json_schema_extra, dict)
        and field.json_schema_extra.get("structural")
    ]  # fmt: skip


def _apply(value: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        what = f"{override!r} is not of the form PATH=VALUE"
        raise RecipeError(what, where="--set", fix="write for example --set gate.max_drop_points=0.5")
    if parts[0] in structural_fields():
        what = f"{parts[0]} is structural: it shapes the line itself and can't change from run to run"
        fix = "change it in the recipe (for Kubeflow, then: modelmill compile RECIPE --output FILE)"
        raise RecipeError(what, where=f"--set {path}", fix=fix)
    here: Any = value
    for index, part in enumerate(parts):
        known = known_fields(Recipe, tuple(parts[:index]))
        if index == 0 and part not in known:
            near = nearest(part, known)
            what = f"there is no field {path!r}: " + (f"did you mean {near}?" if near else f"known: {', '.join(known)}")
            raise RecipeError(what, where=f"--set {path}", fix="modelmill schema describes every field")
        if index == len(parts) - 1:
            here[part] = parse_yaml(text, f"--set {path}", RecipeError)
            return
        below = here.get(part)
        if below is None:
            below = here[part] = {}
        if not isinstance(below, dict):
            what = f"{'.'.join(parts[: index + 1])} is one value, with no fields below it"
            raise RecipeError(what, where=f"--set {path}", fix=f"set {'.'.join(parts[: index + 1])} itself")
        here = below


def schema() -> dict[str, Any]:
    """The recipe's JSON schema (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
