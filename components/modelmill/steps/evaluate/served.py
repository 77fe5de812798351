"""What the channel serves, on the rows that judge the candidate: its champion, and its reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from modelmill.core import manifest
from modelmill.core.bundle import BundleDocument, read_bundle
from modelmill.core.contract import PortType
from modelmill.core.errors import InputError, ModelError
from modelmill.core.evidence import LaneEvidence, RowsFound
from modelmill.core.model import read_model
from modelmill.core.progress import Progress
from modelmill.core.served import Opponent, Sensed, Served, Standing
from modelmill.measuring.models import OpenModel, open_artifact
from modelmill.measuring.predicting import join, predict
from modelmill.steps.evaluate.contract import CandidateInputs, CandidateSettings, ServedSettings
from modelmill.steps.evaluate.evaluation_rows import encode_rows


@dataclass(frozen=True)
class Answered:
    """An opponent, and what it says of the rows.

    Attributes:
        served: What was found of it.
        predicted: Its answers in the candidate's numbering of labels, first axis the row; None where it gave none.
    """

    served: Served
    predicted: np.ndarray | None = None


def answers_of_served(
    own: OpenModel, inputs: CandidateInputs, settings: CandidateSettings, workers: int, progress: Progress
) -> dict[Opponent, Answered]:
    """What the channel serves says of the evaluation rows; one that cannot be asked is told, and ends nothing.

    Args:
        own: The candidate, loaded.
        inputs: The step's.
        settings: The step's, with what was sensed.
        workers: Batches run at a time; the answers do not depend on it.
        progress: Where to report to.
    """
    asked = settings.served
    if asked is None:
        return {}
    model = manifest.digest_of(inputs.model, PortType.MODEL)
    given = {
        Opponent.CHAMPION: (asked.champion, inputs.champion),
        Opponent.REFERENCE: (asked.reference, inputs.reference),
    }
    found: dict[Opponent, Answered] = {}
    for opponent in asked.against:
        sensed, bundle = given[opponent]
        earlier = next((at for at in found.values() if sensed and at.served.bundle == sensed.bundle), None)
        found[opponent] = earlier or _Lane(opponent, own, inputs.rows, settings, workers, progress).answer(
            asked, sensed or Sensed(), bundle, model
        )
    return found


@dataclass(frozen=True)
class _Lane:
    """Asks one opponent's model of the candidate's lane."""

    opponent: Opponent
    own: OpenModel
    rows: Path
    settings: CandidateSettings
    workers: int
    progress: Progress

    def answer(self, asked: ServedSettings, sensed: Sensed, directory: Path | None, model: str) -> Answered:
        if sensed.bundle is None:
            return Answered(Served(standing=Standing.NONE))
        known = Served(standing=Standing.GONE, bundle=sensed.bundle)
        if directory is None:
            return _not(known, Standing.GONE, f"the bundle {sensed.bundle} {sensed.gone or 'is gone'}")
        try:
            return self._asked(asked.lane, known, directory, model)
        except (InputError, ModelError) as error:
            return _not(known, Standing.UNLIKE, f"its bundle is broken: {error.what}")

    def _asked(self, target: str, known: Served, directory: Path, model: str) -> Answered:
        document = read_bundle(directory)
        rows = _rows_found(directory, document, target)
        if rows is not None:
            known = known.model_copy(update={"classes": rows.classes, "trained_classes": rows.trained_classes})
        lane = document.lanes.get(target)
        if lane is None:
            problem = f"its bundle has no lane {target}, but {', '.join(document.lanes)}"
            return _not(known, Standing.ABSENT, problem)
        known = known.model_copy(update={"model": lane.model})
        if lane.model == model:
            return Answered(known.model_copy(update={"standing": Standing.SAME}))
        path = directory / lane.path
        found = read_model(path)
        if found.task != self.own.task.name:
            return _not(known, Standing.UNLIKE, f"it is of the task {found.task}, not of {self.own.task.name}")
        if set(found.labels) != set(self.own.labels):
            return _not(known, Standing.UNLIKE, _labels_in_words(found.labels, self.own.labels))
        predicted = self._predicted(path)
        return Answered(known.model_copy(update={"standing": Standing.PREDICTED}), predicted)

    def _predicted(self, path: Path) -> np.ndarray:
        model = open_artifact(path, self.settings.runtime, threads=1)
        asked = encode_rows(self.rows, model)
        with self.progress.bar(f"{self.opponent.value} predicts", asked.plan.rows, "rows") as bar:
            part = predict(
                model.session,
                model.task,
                model.processor,
                asked.features,
                asked.plan,
                workers=self.workers,
                references=asked.references,
                bar=bar,
            )
        predicted = model.task.decode(join([part], asked.plan.rows))
        if model.labels == self.own.labels:
            return predicted
        numbers = {label: number for number, label in enumerate(self.own.labels)}
        renumbered = np.asarray([numbers[label] for label in model.labels], dtype=predicted.dtype)
        return np.asarray(renumbered[predicted])


def _not(known: Served, standing: Standing, problem: str) -> Answered:
    return Answered(known.model_copy(update={"standing": standing, "problem": problem}))


def _rows_found(directory: Path, document: BundleDocument, lane: str) -> RowsFound | None:
    """What was found of the rows that judged a bundle, which are the same for all its lanes."""
    verdict = document.lanes.get(lane) or next(iter(document.lanes.values()))
    try:
        return LaneEvidence.model_validate_json((directory / verdict.verdict).read_bytes()).rows_found
    except (OSError, ValidationError):
        return None


def _labels_in_words(theirs: Sequence[str], ours: Sequence[str]) -> str:
    more, fewer = sorted(set(theirs) - set(ours)), sorted(set(ours) - set(theirs))
    said = [f"it lacks {_shown(fewer)}"] if fewer else []
    said += [f"it has {_shown(more)}, which the candidate lacks"] if more else []
    return f"its labels are others: {'; '.join(said)}"


def _shown(labels: Sequence[str]) -> str:
    return ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
