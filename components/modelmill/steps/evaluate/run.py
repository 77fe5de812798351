"""Evaluate: what the baseline says, what the candidate says, what each takes, and what a server makes of it."""

from __future__ import annotations

from modelmill.core import hardware
from modelmill.core.contract import Report
from modelmill.core.progress import Progress
from modelmill.measuring.models import open_artifact, open_checkpoint
from modelmill.steps.evaluate.answers import write_answers
from modelmill.steps.evaluate.contract import (
    BaselineInputs,
    BaselineOutputs,
    BaselineSettings,
    CandidateInputs,
    CandidateOutputs,
    CandidateSettings,
    MeasureInputs,
    MeasureOutputs,
    MeasureSettings,
    SmokeInputs,
    SmokeOutputs,
    SmokeSettings,
)
from modelmill.steps.evaluate.measurements import write_measurements
from modelmill.steps.evaluate.served import answers_of_served
from modelmill.steps.evaluate.smoke import write_smoke
from modelmill.tasks import registry


def baseline(
    inputs: BaselineInputs, outputs: BaselineOutputs, settings: BaselineSettings, progress: Progress
) -> Report:
    """Predict the evaluation rows with the checkpoint in PyTorch, eager, float32.

    Raises:
        DataError: A row's label is not one of the model's, or there are no rows.
        ModelError: The checkpoint is broken, or an output is not finite.
    """
    model = open_checkpoint(inputs.checkpoint, registry.get(settings.task), hardware.threads())
    # torch holds one number of threads for the whole process: it parallelises inside a batch.
    return write_answers(model, inputs.rows, outputs.predictions, who="baseline", workers=1, progress=progress)


def candidate(
    inputs: CandidateInputs, outputs: CandidateOutputs, settings: CandidateSettings, progress: Progress
) -> Report:
    """Predict the evaluation rows with the candidate on the target's runtime.

    Each batch runs on one thread and several batches at a time, so that the bytes cannot depend on threads. What the
    channel serves answers the same rows in the same way, where the settings ask for it.

    Raises:
        DataError: A row's label is not one of the model's, or there are no rows.
        ModelError: The artifact is broken, or an output is not finite.
    """
    model = open_artifact(inputs.model, settings.runtime, threads=1)
    workers = hardware.threads()
    return write_answers(
        model,
        inputs.rows,
        outputs.predictions,
        who="candidate",
        workers=workers,
        progress=progress,
        other_batches=True,
        served=answers_of_served(model, inputs, settings, workers, progress),
    )


def measure(inputs: MeasureInputs, outputs: MeasureOutputs, settings: MeasureSettings, progress: Progress) -> Report:
    """Time the baseline, the unquantized models and the candidate in turns, and weigh the candidate.

    Raises:
        HardwareError: The machine is not of the declared hardware class.
        DataError: There are no rows to measure throughput on.
        ModelError: A model is broken.
    """
    return write_measurements(inputs, outputs.measurements, settings, progress)


def smoke(inputs: SmokeInputs, outputs: SmokeOutputs, settings: SmokeSettings, progress: Progress) -> Report:
    """Serve the candidate as its bundle will, and ask it; where no server is named, say so.

    Raises:
        DeploymentError: The server does not start.
        DataError: There are no rows.
        ModelError: The model, or its predictions, are broken.
    """
    return write_smoke(inputs, outputs.smoke, settings, progress)
