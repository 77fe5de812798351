"""The work of gate: read what evaluate found, judge it, and write the verdict with its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np

from modelmill.core import manifest
from modelmill.core.contract import PortType, Report
from modelmill.core.errors import DataError, ModelError
from modelmill.core.evidence import LaneEvidence, Measurements, Verdict
from modelmill.core.model import read_model
from modelmill.core.predictions import Predictions, read_predictions
from modelmill.core.progress import Progress
from modelmill.core.rows import read_dataset, read_rows
from modelmill.reports.render import render_lane
from modelmill.reports.unrendered import rendered
from modelmill.steps.gate import compare, judge
from modelmill.steps.gate.contract import STEP, Inputs, Outputs, Settings
from modelmill.steps.gate.noninferiority import share_bounds
from modelmill.tasks import registry


def run(inputs: Inputs, outputs: Outputs, settings: Settings, progress: Progress) -> Report:
    """Judge a lane's candidate.

    A refusal is a result: the step ends well whatever the verdict.

    Raises:
        DataError: There are no evaluation rows.
        ModelError: Predictions are of other rows, of another task or of another shape.
    """
    task = registry.get(settings.task)
    digests = {port.name: _digest(getattr(inputs, port.name), port.type) for port in STEP.input_ports}
    answers, documents = _answers(inputs, settings, digests["rows"])
    model = read_model(inputs.model)
    measurements = Measurements.model_validate_json((inputs.measurements / "measurements.json").read_bytes())

    policy = settings.policy
    rows = len(answers.reference)
    lost = int((answers.baseline_right & ~answers.candidate_right).sum())
    gained = int((answers.candidate_right & ~answers.baseline_right).sum())
    right = {"baseline": int(answers.baseline_right.sum()), "candidate": int(answers.candidate_right.sum())}
    paired = judge.Paired(task.metric.name, rows, lost, gained, right["candidate"])
    checks = judge.checks(paired, measurements, policy)
    verdict, reasons = judge.overall(checks)
    drop = next(check for check in checks if check.name == "max_drop_points")
    evidence = LaneEvidence(
        target=settings.target,
        task=settings.task,
        verdict=verdict,
        reasons=reasons,
        checks=checks,
        metric=task.metric,
        method=judge.method(policy.confidence),
        confidence=policy.confidence,
        rows=rows,
        baseline=right["baseline"] / rows,
        candidate=right["candidate"] / rows,
        baseline_ci=share_bounds(right["baseline"], rows, policy.confidence),
        candidate_ci=share_bounds(right["candidate"], rows, policy.confidence),
        drop_points=drop.value,
        drop_points_ci=drop.interval or (drop.value, drop.value),
        gained=gained,
        lost=lost,
        metrics={name: _shares(document) for name, document in documents.items()},
        classes=compare.class_changes(answers),
        confusions=compare.confusions(answers),
        disagreements=compare.disagreements(answers, list(read_rows(inputs.rows)), task.text_of),
        disagreement_count=len(answers.differing),
        measurements=measurements,
        precision=model.precision,
        model_facts=model.facts,
        digests=digests,
    )
    manifest.write_json(outputs.verdict / "verdict.json", evidence.model_dump(mode="json"))
    report = rendered(lambda: render_lane(evidence), settings.target, progress)
    (outputs.report / "report.html").write_text(report, "utf-8")
    progress.fact(f"{settings.target}: {verdict.value}. {reasons[0]}")
    return Report(
        facts={
            "verdict": verdict.value,
            "reasons": list(reasons),
            "baseline": evidence.baseline,
            "candidate": evidence.candidate,
            "drop_points": evidence.drop_points,
            "drop_points_ci": list(evidence.drop_points_ci),
            "failed": [check.name for check in checks if check.verdict is Verdict.FAIL],
            "undecided": [check.name for check in checks if check.verdict is Verdict.INCONCLUSIVE],
        }
    )


def _answers(inputs: Inputs, settings: Settings, rows: str) -> tuple[compare.Answers, dict[str, Predictions]]:
    """Both models' answers, checked to be about the rows given."""
    task = registry.get(settings.task)
    count = read_dataset(inputs.rows).count
    if count == 0:
        what = "there are no evaluation rows to judge on"
        raise DataError(what, where="data.evaluate", fix="name a split with rows in the recipe")
    documents: dict[str, Predictions] = {}
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, directory in (("baseline", inputs.baseline), ("candidate", inputs.candidate)):
        document, found = read_predictions(directory)
        if document.task != settings.task:
            _refuse(name, directory, f"are of the task {document.task}, and {settings.task} is judged")
        if document.rows != rows:
            _refuse(name, directory, f"are of the rows {document.rows}, and {rows} are judged")
        lengths = {key: len(array) for key, array in found.items()}
        if {document.count, *lengths.values()} != {count}:
            _refuse(name, directory, f"have lengths {lengths} for {document.count} rows, and {count} are judged")
        documents[name], arrays[name] = document, found
    before, after = arrays["baseline"], arrays["candidate"]
    if not np.array_equal(before["reference"], after["reference"]):
        _refuse("candidate", inputs.candidate, "have other references than the baseline's, for the same rows")
    if documents["baseline"].labels != documents["candidate"].labels:
        _refuse("candidate", inputs.candidate, "name other labels than the baseline's, or in another order")
    if before["predicted"].shape != after["predicted"].shape:
        _refuse("candidate", inputs.candidate, "have another shape than the baseline's")
    answers = compare.Answers(
        labels=documents["baseline"].labels,
        reference=before["reference"],
        baseline=before["predicted"],
        candidate=after["predicted"],
        baseline_right=task.correct(before["predicted"], before["reference"]),
        candidate_right=task.correct(after["predicted"], after["reference"]),
    )
    return answers, documents


def _refuse(name: str, directory: Path, what: str) -> NoReturn:
    what = f"the {name}'s predictions {what}"
    fix = "run evaluate again on the rows that gate is given"
    raise ModelError(what, where=str(directory / "predictions.json"), fix=fix)


def _shares(document: Predictions) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in document.metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _digest(directory: Path, type: PortType) -> str:
    """The digest of an input: what the store verified, or computed where no store gave it."""
    if (directory / manifest.MANIFEST).is_file():
        return manifest.read(directory).digest
    return manifest.build(directory, type).digest
