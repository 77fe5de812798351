"""The work of gate: read what evaluate found, judge it, and write the verdict with its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np

from modelmill.core import manifest
from modelmill.core.contract import Report
from modelmill.core.documents import nearest
from modelmill.core.errors import DataError, ModelError, RecipeError
from modelmill.core.evidence import LaneEvidence, McNemar, Measurements, Metric, Verdict
from modelmill.core.model import read_model
from modelmill.core.predictions import Predictions, array_of, read_predictions
from modelmill.core.progress import Progress
from modelmill.core.rows import read_dataset, read_rows
from modelmill.core.served import Opponent
from modelmill.core.smoke import SMOKE_DOCUMENT, Smoke
from modelmill.measuring.noninferiority import mcnemar
from modelmill.reports.render import render_lane
from modelmill.reports.unrendered import rendered
from modelmill.steps.gate import against as against_served
from modelmill.steps.gate import compare, judge, resources, rows_found
from modelmill.steps.gate import smoke as smoke_test
from modelmill.steps.gate.comparing import Named, compared_of
from modelmill.steps.gate.contract import STEP, Inputs, Outputs, Settings
from modelmill.steps.gate.slices import check_slices, judge_slices, names_of
from modelmill.steps.gate.units import units_of
from modelmill.tasks import registry
from modelmill.tasks.base import Task


def run(inputs: Inputs, outputs: Outputs, settings: Settings, progress: Progress) -> Report:
    """Judge a lane's candidate.

    A refusal is a result: the step ends well whatever the verdict.

    Raises:
        DataError: There are no evaluation rows.
        ModelError: Predictions are of other rows, of another task or of another shape, or lack what a check needs.
        RecipeError: The policy asks what cannot be judged here.
    """
    task = registry.get(settings.task)
    digests = {port.name: manifest.digest_of(getattr(inputs, port.name), port.type) for port in STEP.input_ports}
    answers, documents, opponents = _answers(inputs, settings, digests["rows"])
    model = read_model(inputs.model)
    measurements = Measurements.model_validate_json((inputs.measurements / "measurements.json").read_bytes())
    smoke = Smoke.model_validate_json((inputs.smoke / SMOKE_DOCUMENT).read_bytes())
    if smoke.judged != digests["model"]:
        what = f"the smoke test is of the model {smoke.judged}, and {digests['model']} is judged"
        raise ModelError(what, where=str(inputs.smoke / SMOKE_DOCUMENT), fix="run evaluate-smoke again on this model")

    policy = settings.policy
    rows = len(answers.reference)
    metric = metric_of(task, policy.metric)
    asked = list(read_rows(inputs.rows))
    units = Named(policy.unit, units_of(policy.unit, asked)) if policy.unit is not None else None
    compared = compared_of(task, metric, answers, units)
    lost, gained = compared.lost, compared.gained
    served = documents["candidate"].served
    against, held = against_served.judged(
        served, opponents, answers, policy, lambda both: compared_of(task, metric, both, units), task.correct
    )
    slices = None
    neighbours = documents["candidate"].neighbours
    labels = (task.label_of(row) for row in asked)
    champion = served.get(Opponent.CHAMPION)
    found = rows_found.rows_found(read_dataset(inputs.rows), labels, policy.confidence, champion)
    checks = [
        *judge.checks(compared, policy),
        *held,
        *resources.checks(measurements, neighbours, settings),
        *smoke_test.checks(smoke, policy),
        *rows_found.checks(found, rows, policy, champion),
    ]
    if policy.slices.by is not None:
        names = names_of(policy.slices.by, answers, asked)
        slices = judge_slices(answers, names, policy.slices.by, policy.slices, policy.confidence)
        checks.append(check_slices(slices))
    exact_p, mid_p = mcnemar(lost, gained)
    verdict, reasons = judge.overall(checks)
    drop = next(check for check in checks if check.name == "max_drop_points")
    evidence = LaneEvidence(
        target=settings.target,
        task=settings.task,
        verdict=verdict,
        reasons=reasons,
        checks=checks,
        metric=metric,
        method=compared.method(policy.confidence),
        confidence=policy.confidence,
        rows=rows,
        units=compared.units if compared.by_unit else None,
        baseline=compared.baseline,
        candidate=compared.candidate,
        baseline_ci=compared.baseline_bounds(policy.confidence),
        candidate_ci=compared.candidate_bounds(policy.confidence),
        drop_points=compared.drop_points,
        drop_points_ci=drop.interval or (compared.drop_points, compared.drop_points),
        gained=gained,
        lost=lost,
        metrics={name: _shares(document) for name, document in documents.items()},
        classes=compare.class_changes(answers),
        confusions=compare.confusions(answers),
        slices=slices,
        mcnemar=None if compared.by_unit else McNemar(exact_p=exact_p, mid_p=mid_p),
        rows_found=found,
        against=against,
        neighbours=neighbours,
        smoke=smoke,
        disagreements=compare.disagreements(answers, asked, task.text_of),
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
            **{
                f"drop_vs_{opponent.value}_points": other.drop_points
                for opponent, other in against.items()
                if other.drop_points is not None
            },
            "failed": [check.name for check in checks if check.verdict is Verdict.FAIL],
            "undecided": [check.name for check in checks if check.verdict is Verdict.INCONCLUSIVE],
        }
    )


def metric_of(task: Task, name: str | None) -> Metric:
    """The metric that decides: the task's primary one, or the one that is named.

    Raises:
        RecipeError: The task has no such metric.
    """
    known = {metric.name: metric for metric in task.metrics_judged}
    if name is not None and name not in known:
        near = nearest(name, list(known))
        what = f"the task {task.name} has no metric {name!r} to judge by" + (f": did you mean {near}?" if near else "")
        raise RecipeError(what, where="gate.metric", fix=f"use one of: {', '.join(known)}")
    return task.metric if name is None else known[name]


def _answers(
    inputs: Inputs, settings: Settings, rows: str
) -> tuple[compare.Answers, dict[str, Predictions], dict[Opponent, np.ndarray]]:
    """Both models' answers, checked to be about the rows given; the documents; and what is served says, by opponent."""
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
    opponents = {name: after[array_of(name)] for name in Opponent if array_of(name) in after}
    for name, theirs in opponents.items():
        if theirs.shape != before["predicted"].shape:
            _refuse(
                "candidate", inputs.candidate, f"hold answers of the {name.value} in another shape than the baseline's"
            )
    answers = compare.Answers(
        labels=documents["baseline"].labels,
        reference=before["reference"],
        baseline=before["predicted"],
        candidate=after["predicted"],
        baseline_right=task.correct(before["predicted"], before["reference"]),
        candidate_right=task.correct(after["predicted"], after["reference"]),
    )
    return answers, documents, opponents


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
