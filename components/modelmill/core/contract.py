"""What a step promises: ports, settings, and what its key stands on.

A step's ``contract.py`` declares two dataclasses whose fields are ports, one closed pydantic model of settings, and
ties them in a `StepContract`. A step that does separately keyed work (evaluate: baseline, candidate, measurements)
declares one contract for each *part*. Nothing here or in a contract imports what a scheduler would not want to load.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, JsonValue

JSON = JsonValue
"""What a JSON document holds."""


class PortType(StrEnum):
    """What an artifact is."""

    CHECKPOINT = "checkpoint"
    """A PyTorch model in Hugging Face layout: config.json, model.safetensors, tokenizer."""
    ROWS = "rows"
    """``rows.jsonl`` and ``dataset.json`` (`modelmill.core.rows`)."""
    MODEL = "model"
    """A model artifact: ``model.json`` and its graphs (`modelmill.core.model`)."""
    CHOICE = "choice"
    """``choice.json``: how to quantize, and why."""
    PREDICTIONS = "predictions"
    """``predictions.json`` and arrays (`modelmill.core.predictions`)."""
    MEASUREMENTS = "measurements"
    """``measurements.json`` (`modelmill.core.evidence.Measurements`)."""
    SMOKE = "smoke"
    """``smoke.json`` (`modelmill.core.smoke.Smoke`)."""
    VERDICT = "verdict"
    """``verdict.json`` (`modelmill.core.evidence.LaneEvidence`)."""
    REPORT = "report"
    """``report.html``, self-contained."""
    BUNDLE = "bundle"
    """What publish ships."""


class Kind(StrEnum):
    """Whether an output, made again, is the same bytes."""

    REPRODUCIBLE = "reproducible"
    MEASURED = "measured"


class KeyOn(StrEnum):
    """What of the machine a step key holds besides packages."""

    THREADS = "threads"
    INSTRUCTION_SET = "instruction_set"
    HARDWARE_CLASS = "hardware_class"


class Zone(StrEnum):
    """The identity a step runs under."""

    UNTRUSTED = "untrusted"
    """Parses models and data from outside; cannot write the registry."""
    RELEASE = "release"
    """May write the registry and hold signing keys: publish alone."""


@dataclass(frozen=True)
class Port:
    """A named, typed input or output."""

    name: str
    type: PortType
    description: str
    many: bool = False
    """A merge edge: one artifact for each lane, given as a mapping from target name."""


def port(type: PortType, description: str, *, many: bool = False) -> Any:
    """Declare a dataclass field as a port."""
    return field(metadata={"port": (type, description, many)})


def sensed(type: PortType, description: str) -> Any:
    """Declare a dataclass field as an input that no edge feeds: the step's ``sense`` finds it in the store, or None."""
    return field(default=None, metadata={"sensed": (type, description)})


def scratch(description: str) -> Any:
    """Declare a directory of an outputs class that outlives a killed attempt and is no output.

    The next attempt under the same step key finds what the killed one reported with `Progress.saved`.
    """
    return field(metadata={"scratch": description})


def ports_of(declaration: type) -> tuple[Port, ...]:
    """The ports a dataclass declares, in order."""
    return tuple(
        Port(item.name, *item.metadata["port"]) for item in dataclasses.fields(declaration) if "port" in item.metadata
    )


def sensed_of(declaration: type) -> tuple[Port, ...]:
    """The sensed inputs a dataclass declares, in order."""
    return tuple(
        Port(item.name, *item.metadata["sensed"])
        for item in dataclasses.fields(declaration)
        if "sensed" in item.metadata
    )


def scratch_of(declaration: type) -> tuple[str, ...]:
    """The names of the scratch directories a dataclass declares."""
    return tuple(item.name for item in dataclasses.fields(declaration) if "scratch" in item.metadata)


class Closed(BaseModel):
    """Base of all settings and documents: frozen, and an unknown key is an error."""

    # Built when first used: a scheduler that loads the contracts of all steps validates the settings of few.
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


SENSED = "served"
"""The setting of a step that senses: what of the registry; None, nothing is sensed."""


class Unkeyed:
    """Marks a settings field that does not shape the output, with ``Annotated[T, Unkeyed()]``.

    A source's location is the example: what was read is in the key by its digest, where it lay is not.
    """


@dataclass(frozen=True)
class Report:
    """What a step's run gives besides its outputs: small numbers and words for people and UIs."""

    facts: Mapping[str, JSON] = field(default_factory=dict)


BUILDS: Mapping[str, tuple[str, ...]] = {"onnxruntime": ("onnxruntime-gpu",)}
"""Distribution → other builds of the same code, under another name; each has the module, and one may be installed."""


@dataclass(frozen=True)
class StepContract:
    """One container command of the line.

    Attributes:
        name: The step, a verb; its folder under ``steps/`` (with ``_`` for ``-``).
        part: The part of the step that is keyed by itself, or None for a step of one part.
        version: Raised whenever the same inputs would give another output.
        summary: One sentence for people.
        inputs: Dataclass of input ports; the runner fills it with directories (mappings of them for merge ports).
        outputs: Dataclass of output ports and scratch directories, all empty or resumable directories.
        settings: Closed pydantic model.
        kind: Whether the outputs are reproducible or measured.
        packages: Distributions whose versions shape the output.
        packages_of: Settings → more of them, where the settings name what runs a model; or None.
        key_on: What of the machine the key holds.
        key_on_of: Settings → more of it, where the settings name what runs a model; or None.
        zone: The identity the step runs under.
        function: ``module:name`` of ``run(inputs, outputs, settings, progress) -> Report``.
        resolve: ``module:name`` of ``resolve(settings, progress) -> settings``, which pins what floats (a branch to
            a commit, a file to its digest) before the key is made; or None.
        sense: ``module:name`` of ``sense(store, settings) -> (settings, digests)``, which looks in the registry, before
            the key is made, for what the step is given beside what the line feeds it: settings with what was found, and
            the digests at its sensed ports; or None. It only reads.
        effect: ``module:name`` of ``effect(store, outputs, settings, progress) -> Report``, what the step does in the
            store besides its outputs (directories and digests by port are in ``outputs``); done in every run, cached
            or not, so it is idempotent; or None.
        light: Whether it runs where only the package's base and the store's client are installed: in the light image,
            where nothing can parse a model or a data set.
    """

    name: str
    version: int
    summary: str
    inputs: type
    outputs: type
    settings: type[Closed]
    function: str
    part: str | None = None
    kind: Kind = Kind.REPRODUCIBLE
    packages: tuple[str, ...] = ()
    packages_of: Callable[[Any], tuple[str, ...]] | None = None
    key_on: frozenset[KeyOn] = frozenset()
    key_on_of: Callable[[Any], frozenset[KeyOn]] | None = None
    zone: Zone = Zone.UNTRUSTED
    resolve: str | None = None
    sense: str | None = None
    effect: str | None = None
    light: bool = False

    @property
    def id(self) -> str:
        """The step's name with its part: ``evaluate-baseline``; what orchestrators call the task."""
        return f"{self.name}-{self.part}" if self.part else self.name

    @property
    def input_ports(self) -> tuple[Port, ...]:
        """The input ports in order."""
        return ports_of(self.inputs)

    @property
    def sensed_ports(self) -> tuple[Port, ...]:
        """The inputs that no edge feeds, in order."""
        return sensed_of(self.inputs)

    @property
    def output_ports(self) -> tuple[Port, ...]:
        """The output ports in order."""
        return ports_of(self.outputs)

    def packages_for(self, settings: Closed) -> tuple[str, ...]:
        """The distributions whose versions are in the key of a step with these settings, sorted."""
        return tuple(sorted({*self.packages, *(self.packages_of(settings) if self.packages_of else ())}))

    def key_on_for(self, settings: Closed) -> frozenset[KeyOn]:
        """What of the machine is in the key of a step with these settings."""
        return self.key_on | (self.key_on_of(settings) if self.key_on_of else frozenset())

    def load(self) -> Callable[[Any, Any, Any, Any], Report]:
        """Import the work. Heavy: only whoever runs the step calls this."""
        return cast("Callable[[Any, Any, Any, Any], Report]", _load(self.function))

    def load_resolve(self) -> Callable[[Any, Any], Closed] | None:
        """Import the resolver, if the step has one."""
        return cast("Callable[[Any, Any], Closed]", _load(self.resolve)) if self.resolve else None

    def load_sense(self) -> Callable[[Any, Any], tuple[Closed, Mapping[str, str]]] | None:
        """Import what looks in the registry, if the step has it."""
        sense = _load(self.sense) if self.sense else None
        return cast("Callable[[Any, Any], tuple[Closed, Mapping[str, str]]] | None", sense)

    def load_effect(self) -> Callable[..., Report] | None:
        """Import the effect, if the step has one."""
        return cast("Callable[..., Report]", _load(self.effect)) if self.effect else None


def _load(reference: str) -> object:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def directories(declaration: type, found: Mapping[str, Path | Mapping[str, Path]]) -> Any:
    """Make an inputs or outputs object from directories by port name."""
    return declaration(**found)
