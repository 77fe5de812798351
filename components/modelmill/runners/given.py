"""Artifacts that a step is given as directories, by a pipeline that is not ours: are they what the step takes?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from modelmill.core import manifest
from modelmill.core.contract import Closed, Port, PortType
from modelmill.core.documents import validate
from modelmill.core.errors import CorruptArtifactError, DataError, InputError, ModelError, StoreError
from modelmill.core.evidence import LaneEvidence, Measurements
from modelmill.core.model import MODEL_DOCUMENT, ModelDocument
from modelmill.core.predictions import Predictions
from modelmill.core.rows import Dataset
from modelmill.core.smoke import SMOKE_DOCUMENT, Smoke
from modelmill.steps.calibrate_quantize.contract import Choice

ROWS = "rows.jsonl"
_DOCUMENTS: Mapping[PortType, tuple[str, type[Closed] | None]] = {
    PortType.CHECKPOINT: ("config.json", None),
    PortType.ROWS: ("dataset.json", Dataset),
    PortType.MODEL: (MODEL_DOCUMENT, ModelDocument),
    PortType.CHOICE: ("choice.json", Choice),
    PortType.PREDICTIONS: ("predictions.json", Predictions),
    PortType.MEASUREMENTS: ("measurements.json", Measurements),
    PortType.SMOKE: (SMOKE_DOCUMENT, Smoke),
    PortType.VERDICT: ("verdict.json", LaneEvidence),
}
"""What an artifact of each type has besides its bulk. A step checks the bulk itself."""
_ALSO: Mapping[PortType, tuple[str, ...]] = {PortType.MODEL: (PortType.BUNDLE,)}
"""A bundle is a model artifact, too: the one at its root."""


def digest_of_given(port: Port, directory: Path) -> str:
    """Check a directory against the port that takes it; the digest of its files.

    A directory with a manifest must be what the manifest says. One without was made by somebody else's step, and is
    taken where its documents are the port's.

    Raises:
        InputError: It is no directory, or not an artifact of the port's type; the file and what it must hold are named.
        CorruptArtifactError: Its bytes are not its manifest's.
    """
    wrong = DataError if port.type is PortType.ROWS else ModelError
    where = f"{port.name}: {directory}"
    fix = f"give a directory with {_words(port.type)}"
    if not directory.is_dir():
        what = f"the input {port.name} is a file, and a {port.type.value} artifact is a directory"
        what = what if directory.exists() else f"the input {port.name} is not there"
        raise wrong(what, where=where, fix=fix)
    try:
        found = _manifest(port, directory, wrong)
    except CorruptArtifactError:
        raise
    except StoreError as problem:
        raise wrong(problem.what, where=f"{port.name}: {problem.where}", fix=problem.fix) from None
    name, model = _DOCUMENTS[port.type]
    if name not in found.files:
        what = f"the input {port.name} is no {port.type.value} artifact: it has no {name}"
        raise wrong(what, where=where, fix=fix)
    document = validate(model, _mapping(directory / name, wrong), f"{port.name}: {name}", wrong) if model else None
    if isinstance(document, Dataset):
        _check_rows(port, directory, document)
    return found.digest


def _words(type: PortType) -> str:
    if type is PortType.ROWS:
        return (
            f"{ROWS} (JSON rows with id and the task's columns) and dataset.json (task, role, columns, labels, count)"
        )
    name, _ = _DOCUMENTS[type]
    return f"{name} and the files of a {type.value} artifact"


def _manifest(port: Port, directory: Path, wrong: type[InputError]) -> manifest.Manifest:
    if not (directory / manifest.MANIFEST).is_file():
        return manifest.build(directory, port.type)
    try:
        said = manifest.read(directory)
    except ValidationError:
        what = f"the {manifest.MANIFEST} of the input {port.name} cannot be read"
        raise wrong(what, where=str(directory), fix="remove it, or give the artifact as it was written") from None
    if said.type not in {port.type, *_ALSO.get(port.type, ())}:
        what = f"the input {port.name} takes a {port.type.value} artifact, and this is a {said.type} artifact"
        raise wrong(what, where=str(directory), fix="connect the output that holds it")
    manifest.verify(directory, said)
    return said


def _mapping(path: Path, wrong: type[InputError]) -> dict[str, object]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        what = f"{path.name} is no JSON mapping"
        raise wrong(what, where=str(path), fix="write it as the step's README describes")
    return value


def _check_rows(port: Port, directory: Path, dataset: Dataset) -> None:
    """Read every row once: a step that meets a wrong one in the middle has worked in vain."""
    path = directory / ROWS
    seen: set[str] = set()
    fix = f"write each row as one JSON mapping with a unique text id and {', '.join(dataset.columns)}"
    if not path.is_file():
        what = f"the input {port.name} has no {ROWS}"
        raise DataError(what, where=str(directory), fix=fix)
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            problem = None
            if not isinstance(row, dict):
                problem = "is no JSON mapping"
            elif not isinstance(row.get("id"), str) or row["id"] in seen:
                problem = "has no text id of its own"
            elif missing := [name for name in dataset.columns if name not in row]:
                problem = f"has no {missing[0]}"
            if problem is not None:
                what = f"row {number} of the input {port.name} {problem}"
                raise DataError(what, where=f"{path}:{number}", fix=fix)
            seen.add(row["id"])
    if len(seen) != dataset.count:
        what = f"dataset.json says {dataset.count} rows, and {ROWS} has {len(seen)}"
        raise DataError(what, where=str(directory), fix="write the number of rows into dataset.json")
