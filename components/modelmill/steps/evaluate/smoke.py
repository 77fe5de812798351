"""The smoke test: a lane's serving files in a real server, asked the evaluation's own batches over the wire."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelmill.core.bundle import SERVING
from modelmill.core.contract import PortType, Report
from modelmill.core.errors import DeploymentError
from modelmill.core.evidence import Measurements
from modelmill.core.manifest import FileEntry, digest_of, relative_files, sha256_of, write_json
from modelmill.core.model import ModelDocument, read_model
from modelmill.core.predictions import read_predictions
from modelmill.core.progress import Progress
from modelmill.core.rows import Row
from modelmill.core.smoke import SMOKE_DOCUMENT, ServedLatency, ServingPlan, Smoke, SmokeState
from modelmill.measuring import ratios
from modelmill.measuring.models import OpenModel, open_artifact
from modelmill.measuring.rounds import Rounds, interleave
from modelmill.serving import repository, server
from modelmill.serving.agreement import ask
from modelmill.serving.client import AnswerError, Client
from modelmill.serving.triton_model import open_classifier
from modelmill.steps.evaluate.contract import SmokeInputs, SmokeMode, SmokeSettings
from modelmill.steps.evaluate.evaluation_rows import encode_rows, load_rows

IN_PROCESS, SERVED = "in_process", "served"
_TEXTS = 16
"""Texts that the timed requests go round."""
_P95 = 95


def write_smoke(inputs: SmokeInputs, directory: Path, settings: SmokeSettings, progress: Progress) -> Report:
    """Serve the lane as the bundle will have it, ask it, and write ``smoke.json``.

    Raises:
        DeploymentError: The server does not start, or is not the one that the step's key names.
        DataError: There are no rows.
        ModelError: The model, or its predictions, are broken.
    """
    document = read_model(inputs.model)
    measurements = Measurements.model_validate_json((inputs.measurements / "measurements.json").read_bytes())
    neighbours = read_predictions(inputs.predictions)[0].neighbours
    plan = repository.plan_of(document, settings.name, settings.runtime.value, measurements, neighbours)
    smoke = _tried(inputs, settings, document, plan, progress)
    write_json(directory / SMOKE_DOCUMENT, smoke.model_dump(mode="json"))
    progress.fact(f"{settings.target}: smoke test {smoke.state.value}. {smoke.words}")
    latency = smoke.latency
    return Report(
        {
            "smoke": smoke.state.value,
            "words": smoke.words,
            "rows": smoke.rows,
            "differing": smoke.differing,
            **({"served_p50_ratio": latency.p50_ratio, "served_p95_ratio": latency.p95_ratio} if latency else {}),
        }
    )


def _tried(
    inputs: SmokeInputs,
    settings: SmokeSettings,
    document: ModelDocument,
    plan: ServingPlan | None,
    progress: Progress,
) -> Smoke:
    judged = digest_of(inputs.model, PortType.MODEL)
    if plan is None:
        words = f"There are no serving files: {repository.unservable(document, settings.runtime.value)}."
        return Smoke(state=SmokeState.NOT_RUN, words=words, judged=judged)
    files = repository.files_of(document, plan, settings.target)
    with tempfile.TemporaryDirectory(prefix="modelmill-smoke-") as work:
        lane = Path(work) / "lane"
        repository.write_files(lane, files)
        entries = {
            name: FileEntry(sha256=sha256_of(lane / name), size=(lane / name).stat().st_size) for name in sorted(files)
        }
        smoke = Smoke(state=SmokeState.NOT_RUN, words=_not_run(settings), judged=judged, plan=plan, files=entries)
        installation = None if settings.mode is SmokeMode.OFF else server.find()
        if (installation.words if installation else None) != settings.server:
            what = f"the server is {installation.words if installation else 'gone'}, and was {settings.server}"
            raise DeploymentError(what, where=server.VARIABLE, fix="run again: the step's key names the server")
        if installation is None:
            return smoke
        link(inputs.model, lane)
        folder = lane / SERVING / settings.target
        with server.serve(installation, folder, plan.model) as address, Client(address, plan.model) as client:
            smoke = smoke.model_copy(update={"server": client.server(), "packages": dict(installation.packages)})
            failed = client.failed()
            if failed is not None:
                words = f"The server does not load the model: {' '.join(failed.split())[:600]}"
                return smoke.model_copy(update={"state": SmokeState.FAILED, "words": words})
            try:
                return _asked(inputs, settings, smoke, plan, client, progress)
            except AnswerError as problem:
                words = f"A text of the evaluation was refused: {problem}"
                return smoke.model_copy(update={"state": SmokeState.FAILED, "words": words})


def _not_run(settings: SmokeSettings) -> str:
    if settings.mode is SmokeMode.OFF:
        return "The recipe leaves the smoke test out (publish.smoke: off)."
    return f"There is no server to try it in here: {server.VARIABLE} names none."


def _asked(
    inputs: SmokeInputs,
    settings: SmokeSettings,
    smoke: Smoke,
    serving: ServingPlan,
    client: Client,
    progress: Progress,
) -> Smoke:
    """Compare with the evaluation, row by row, and time."""
    model = open_artifact(inputs.model, settings.runtime, threads=1)
    rows = load_rows(inputs.rows, model.task)
    plan = encode_rows(inputs.rows, model).plan
    found = ask(client, rows, plan, inputs.predictions, settings.texts, progress)
    latency = _timed(inputs, settings, serving, model, rows, client, progress)
    words = (
        f"All {found.rows:,} predictions over the wire are the evaluation's; one text takes "
        f"{latency.served_ms_p50:.1f} ms there, {latency.p50_ratio:.2f} times the time in one process."
        if not found.differing
        else f"{found.differing:,} of {found.rows:,} predictions over the wire are not the evaluation's."
    )
    return smoke.model_copy(
        update={
            "state": SmokeState.ANSWERED,
            "words": words,
            "rows": found.rows,
            "differing": found.differing,
            "differences": list(found.differences),
            "largest_change": found.largest_change,
            "latency": latency,
        }
    )


def _timed(
    inputs: SmokeInputs,
    settings: SmokeSettings,
    plan: ServingPlan,
    model: OpenModel,
    rows: Sequence[Row],
    client: Client,
    progress: Progress,
) -> ServedLatency:
    """One text a request, of the first measured length, in this process and over the wire in turns."""
    classifier = open_classifier(inputs.model, plan.threads)
    length = min(settings.sequence_length, model.max_length)
    texts = texts_of_length(model, rows, length)
    with progress.bar("served latency", settings.seconds, "s") as bar:
        rounds = interleave(
            {
                IN_PROCESS: lambda number: classifier.scores([texts[number % len(texts)]]),
                SERVED: lambda number: client.scores([texts[number % len(texts)]]),
            },
            seconds=settings.seconds,
            seed=settings.seed,
            bar=bar,
        )
    return _latency(rounds, length)


def _latency(rounds: Rounds, length: int) -> ServedLatency:
    p50 = ratios.ratio(rounds, SERVED, IN_PROCESS)
    p95 = ratios.ratio(rounds, SERVED, IN_PROCESS, statistic=functools.partial(np.percentile, q=_P95))
    return ServedLatency(
        sequence_length=length,
        in_process_ms_p50=rounds.percentile_ms(IN_PROCESS, 50),
        in_process_ms_p95=rounds.percentile_ms(IN_PROCESS, _P95),
        served_ms_p50=rounds.percentile_ms(SERVED, 50),
        served_ms_p95=rounds.percentile_ms(SERVED, _P95),
        p50_ratio=p50.value,
        p50_ratio_ci=p50.interval,
        p95_ratio=p95.value,
        p95_ratio_ci=p95.interval,
        samples_ms={name: rounds.milliseconds(name) for name in (IN_PROCESS, SERVED)},
    )


def texts_of_length(model: OpenModel, rows: Sequence[Row], length: int) -> list[str]:
    """Texts of the evaluation, put end to end and cut where they have so many tokens, special ones included."""
    texts = [str(row["text"]) for row in rows]
    found = []
    for first in range(min(_TEXTS, len(texts))):
        # A text has a token for each of its words at least, and a text of the rows has one word.
        joined = " ".join(texts[(first + offset) % len(texts)] for offset in range(length))
        cut = model.processor(joined, truncation=True, max_length=length, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]
        found.append(joined[: max(end for _, end in cut)])
    return found


def link(model: Path, lane: Path) -> None:
    """Put the model's files into the lane without their bytes, where the file system can."""
    for name, path in relative_files(model):
        (lane / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, lane / name)
        except OSError:
            shutil.copyfile(path, lane / name)
