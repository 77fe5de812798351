"""What a step stored under its key, and which run asked for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field, ValidationError

from modelmill.core.contract import JSON, Closed, Kind
from modelmill.core.errors import StoreError
from modelmill.core.hardware import Hardware
from modelmill.core.manifest import canonical
from modelmill.core.store import Document, Store, hex_of, refuse_newer

_ATTEMPTS = 20


Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class StepRecord(Closed):
    """``keys/<hex step key>.json``: a finished step."""

    format: int = 1
    step: str
    part: str | None = None
    key: str = Field(description="the step key, sha256:…")
    kind: Kind
    settings: dict[str, JSON] = Field(description="the settings that are in the key")
    inputs: dict[str, str | dict[str, str]] = Field(description="input port → digest, or target → digest")
    packages: dict[str, str] = Field(description="distribution → version")
    hardware: Hardware
    outputs: dict[str, Digest] = Field(description="output port → digest")
    facts: dict[str, JSON] = Field(default_factory=dict)
    seconds: float = Field(ge=0)
    peak_rss_bytes: int = Field(ge=0)
    made_at: str = Field(description="UTC, ISO 8601")
    modelmill: str = Field(description="version of modelmill")

    @property
    def id(self) -> str:
        """The step's name with its part."""
        return f"{self.step}-{self.part}" if self.part else self.step


class RunRecord(Closed):
    """``runs/<run>.json``: a run, from its start on."""

    format: int = 1
    run: str
    recipe: str = Field(description="digest of the recipe as it was run")
    status: str = Field(description="running, promoted, refused, inconclusive or failed")
    started_at: str = Field(description="UTC, ISO 8601")
    finished_at: str | None = None
    document: dict[str, JSON] = Field(default_factory=dict, description="what `run --json` prints")


def utc_now() -> str:
    """The time as records hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def find(store: Store, key: str, *, adopt: bool = True) -> tuple[StepRecord | None, list[str]]:
    """The record of a step key, if all it refers to is whole.

    Args:
        store: Where to look.
        key: The step key.
        adopt: Renew the outputs, so that they stay at least as long as new ones. False only looks.

    Returns:
        The record, or None with the reasons in words where a record is there and cannot be used; (None, []) where
        there is none.

    Raises:
        StoreError: The store is away, or a newer modelmill wrote the record.
    """
    document = store.read(_name(key))
    if document is None:
        return None, []
    record = _parse(document, key)
    if record is None:
        return None, [f"the record of {key} cannot be read: the step is run again"]
    reasons = _missing(store, record, adopt=adopt)
    return (None, reasons) if reasons else (record, [])


def adopt_or_store(store: Store, record: StepRecord) -> StepRecord:
    """Store a finished step whose outputs are stored; who came first wins.

    Returns:
        The record that holds from now on: ``record``, or what another attempt stored before, if its outputs are
        whole. A record that cannot be read or whose outputs are missing or damaged is replaced.

    Raises:
        StoreError: The store is away, or a newer modelmill wrote the record that is there.
    """
    name = _name(record.key)
    content = canonical(record.model_dump(mode="json"))
    for _ in range(_ATTEMPTS):
        if store.create(name, content):
            return record
        document = store.read(name)
        if document is None:
            continue
        stored = _parse(document, record.key)
        if stored is not None and not _missing(store, stored, adopt=True):
            return stored
        if store.replace(name, content, document.version):
            return record
    what = f"the record of {record.id} keeps changing"
    raise StoreError(what, where=name, fix="run again")


def records(store: Store) -> Iterator[tuple[Document, str, float, StepRecord | None]]:
    """(document, its name, time of last change, record or None where it cannot be read) of all step keys."""
    for name, changed_at in store.list_documents("keys/"):
        document = store.read(name)
        if document is not None:
            key = "sha256:" + name.removeprefix("keys/").removesuffix(".json")
            yield document, name, changed_at, _parse(document, key)


def save_run(store: Store, record: RunRecord) -> None:
    """Write a run's record, over what was there: only the run itself writes it."""
    name = f"runs/{record.run}.json"
    content = canonical(record.model_dump(mode="json"))
    for _ in range(_ATTEMPTS):
        document = store.read(name)
        if store.create(name, content) if document is None else store.replace(name, content, document.version):
            return
    what = f"the record of run {record.run} keeps changing"
    raise StoreError(what, where=name, fix="run again")


def update_run(store: Store, run: str, change: Callable[[RunRecord], RunRecord], attempts: int = _ATTEMPTS) -> None:
    """Change a run's record, which the processes of one run share: of two changes at once, neither is lost.

    Raises:
        StoreError: There is no such run, or it keeps changing.
    """
    name = f"runs/{run}.json"
    for _ in range(attempts):
        document = store.read(name)
        if document is None:
            what = f"the store knows no run {run}"
            raise StoreError(what, where=store.uri, fix="start the run from its first task")
        content = canonical(change(_run_of(document, run)).model_dump(mode="json"))
        if store.replace(name, content, document.version):
            return
    what = f"the record of run {run} keeps changing"
    raise StoreError(what, where=name, fix="run again")


def read_run(store: Store, run: str) -> RunRecord | None:
    """A run's record, or None where there is none.

    Raises:
        StoreError: It cannot be read, or a newer modelmill wrote it.
    """
    document = store.read(f"runs/{run}.json")
    return None if document is None else _run_of(document, run)


def _run_of(document: Document, run: str) -> RunRecord:
    name = f"runs/{run}.json"
    content = _loads(document)
    refuse_newer(content, "run", name)
    try:
        return RunRecord.model_validate(content)
    except ValidationError:
        what = f"the record of run {run} cannot be read"
        raise StoreError(what, where=name, fix="the file was damaged: remove it, then run the recipe again") from None


def list_runs(store: Store) -> list[RunRecord]:
    """All runs, newest first; one that cannot be read is left out."""
    found = []
    for name, _ in store.list_documents("runs/"):
        if name.endswith(".json"):
            try:
                record = read_run(store, name.removeprefix("runs/").removesuffix(".json"))
            except StoreError:
                continue
            if record is not None:
                found.append(record)
    return sorted(found, key=lambda record: (record.started_at, record.run), reverse=True)


def _name(key: str) -> str:
    return f"keys/{hex_of(key)}.json"


def _loads(document: Document) -> object:
    try:
        return json.loads(document.content)
    except ValueError:
        return None


def _parse(document: Document, key: str) -> StepRecord | None:
    content = _loads(document)
    refuse_newer(content, "step record", key)
    try:
        record = StepRecord.model_validate(content)
    except ValidationError:
        return None
    return record if record.key == key else None


def _missing(store: Store, record: StepRecord, *, adopt: bool) -> list[str]:
    """Why the record's outputs cannot be used, in words; none where they can."""
    reasons = []
    for port, digest in record.outputs.items():
        problem = store.check_artifact(digest)
        if problem is None and adopt and not store.renew_artifact(digest):
            problem = "was being removed from the store"
        if problem is not None:
            said = "is missing from the store" if problem == "is missing" else problem
            reasons.append(f"output '{port}' of {record.id} {said}: made again")
    return reasons
