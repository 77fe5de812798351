"""The step fetch: a model and rows by role, copied, checked, and divided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from modelmill.core.contract import JSON, Report
from modelmill.core.errors import DataError
from modelmill.core.progress import Progress
from modelmill.core.rows import Dataset, Role, Row, write_rows
from modelmill.steps.fetch.checkpoint import check_checkpoint, drop_unused_shards
from modelmill.steps.fetch.contract import Inputs, Outputs, Settings
from modelmill.steps.fetch.division import divide, splits_of
from modelmill.steps.fetch.licence import take_licence
from modelmill.steps.fetch.readers.registry import reader_of
from modelmill.steps.fetch.selection import choose_data, choose_model, listed
from modelmill.steps.fetch.sources.base import Fetched, Purpose
from modelmill.steps.fetch.sources.registry import open_source
from modelmill.steps.fetch.validation import (
    check_columns,
    check_labels,
    columns_of,
    duplicates,
    keep_columns,
    labels_of,
    rows_of,
)
from modelmill.tasks import registry as tasks
from modelmill.tasks.base import Task

_SHOWN = 5


def run(inputs: Inputs, outputs: Outputs, settings: Settings, progress: Progress) -> Report:
    """Fetch the model and the rows.

    Raises:
        InputError: The recipe, the model or the data is wrong; the message names file, field or row, and the fix.
        SourceError: A source is away, or is no longer what was pinned.
    """
    model = _fetch_model(outputs.model, settings, progress)
    data = _fetch_data(outputs, settings, progress)
    return Report({"model": model, "data": data})


def _fetch_model(directory: Path, settings: Settings, progress: Progress) -> dict[str, JSON]:
    source = open_source(settings.model.source, Purpose.MODEL, settings.mounts)
    fetched = source.fetch(choose_model(settings.model), settings.model.pin, directory, progress)
    rest, licence = take_licence(fetched)
    files = drop_unused_shards(rest)
    facts = check_checkpoint(files, settings.model.sha256)
    progress.fact(f"model {facts['model_type']} with {facts['parameters']} parameters in {facts['bytes']} bytes")
    return {"source": settings.model.source, "pin": settings.model.pin, "license": licence, **facts}


def _fetch_data(outputs: Outputs, settings: Settings, progress: Progress) -> dict[str, JSON]:
    task, data = tasks.get(settings.task), settings.data
    check_columns(task, data)
    with TemporaryDirectory(dir=outputs.train, prefix=".fetch-") as name:
        workspace = Path(name)
        source = open_source(data.source, Purpose.DATA, settings.mounts)
        files = source.fetch(choose_data(data), data.pin, workspace, progress)
        _check_distinct(files, settings)
        splits = reader_of(data.reader)(files, splits_of(data), data, workspace)
    columns = columns_of(task, data, splits)
    rows = {split: rows_of(splits[split], task, data, columns) for split in splits}
    keep_columns(splits[data.evaluate], rows[data.evaluate], data)
    labels = labels_of(label for row in rows[data.train] if (label := task.label_of(row)) is not None)
    for split in splits:
        check_labels(splits[split], rows[split], task, labels)
    roles = divide(rows, data, task.label_of)
    _check_roles(roles, labels, task)
    facts = {role: _facts_of(role, roles, task) for role in roles}
    for role, directory in _directories(outputs).items():
        dataset = Dataset(
            task=task.name, role=role, columns=columns, labels=labels, count=len(roles[role]), facts=facts[role]
        )
        write_rows(directory, dataset, roles[role])
    counts = {role.value: len(roles[role]) for role in roles}
    findings = _findings(roles, task)
    progress.fact(f"rows: {', '.join(f'{role} {count}' for role, count in counts.items())}; {len(labels)} labels")
    for words in findings:
        progress.fact(words)
    return {
        "source": data.source,
        "pin": data.pin,
        "rows": dict(counts),
        "labels": len(labels),
        "bytes": sum(file.size for file in files),
        "duplicates": facts[Role.EVALUATE]["duplicates"],
        "findings": list(findings),
    }


def _directories(outputs: Outputs) -> dict[Role, Path]:
    return {
        Role.TRAIN: outputs.train,
        Role.TUNE: outputs.tune,
        Role.CALIBRATE: outputs.calibrate,
        Role.EVALUATE: outputs.evaluate,
    }


def _check_distinct(files: list[Fetched], settings: Settings) -> None:
    """Two splits of the same bytes are one split under two names: rows would choose the model and judge it."""
    seen: dict[str, Fetched] = {}
    for file in files:
        first = seen.setdefault(file.sha256, file)
        if first is not file and settings.data.reader == "files":
            what = f"{file.name} is the same file as {first.name}, byte for byte"
            raise DataError(what, where=file.where, fix="give every split rows of its own")


def _check_roles(roles: Mapping[Role, list[Row]], labels: list[str], task: Task) -> None:
    """A limit must leave rows of two classes to train on and to judge by."""
    for role in (Role.TRAIN, Role.EVALUATE):
        if labels and len(_labels(roles[role], task)) < 2:
            what = f"the limit leaves {len(roles[role])} rows of one class to {role}"
            raise DataError(what, where=f"data.limit.{role}", fix="raise the limit so that two classes have rows")


def _facts_of(role: Role, roles: Mapping[Role, list[Row]], task: Task) -> dict[str, JSON]:
    """What was found about a role's rows. Numbers and row ids only: no text of the data."""
    found = _labels(roles[role], task)
    if role is not Role.EVALUATE:
        return {"labels_with_rows": len(found)}
    ids, conflicting = _duplicates(roles, task)
    return {
        "labels_with_rows": len(found),
        "labels_not_trained": [*sorted(found - _labels(roles[Role.TRAIN], task))],
        "train_rows_by_label": dict(sorted(_counted(roles[Role.TRAIN], task).items())),
        "duplicates": len(ids),
        "duplicates_with_another_label": conflicting,
        "first_duplicates": list(ids[:_SHOWN]),
    }


def _findings(roles: Mapping[Role, list[Row]], task: Task) -> list[str]:
    """What a reader of the report should know, in words."""
    words = []
    ids, conflicting = _duplicates(roles, task)
    if ids:
        words.append(
            f"{len(ids)} of {len(roles[Role.EVALUATE])} evaluation rows have a text that also chose the model "
            f"(train, tune or calibrate), {conflicting} of them under another label; "
            f"the first: {', '.join(ids[:_SHOWN])}"
        )
    untrained = sorted(_labels(roles[Role.EVALUATE], task) - _labels(roles[Role.TRAIN], task))
    if untrained:
        words.append(f"{len(untrained)} labels are judged but have no training row left: {listed(untrained)}")
    return words


def _labels(rows: Sequence[Row], task: Task) -> set[str]:
    return set(_counted(rows, task))


def _counted(rows: Sequence[Row], task: Task) -> Counter[str]:
    return Counter(label for row in rows if (label := task.label_of(row)) is not None)


def _duplicates(roles: Mapping[Role, list[Row]], task: Task) -> tuple[list[str], int]:
    choosing = [row for role in (Role.TRAIN, Role.TUNE, Role.CALIBRATE) for row in roles[role]]
    return duplicates(task, roles[Role.EVALUATE], choosing)
