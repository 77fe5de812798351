"""The contract of gate: a verdict, with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from modelmill.core.contract import Closed, Kind, PortType, StepContract, port
from modelmill.core.served import Opponent
from modelmill.step_settings import StepSettings


@dataclass(frozen=True)
class Inputs:
    """What is judged, and on what."""

    baseline: Path = port(PortType.PREDICTIONS, "the baseline's predictions")
    candidate: Path = port(PortType.PREDICTIONS, "the candidate's predictions on the same rows")
    measurements: Path = port(PortType.MEASUREMENTS, "what the candidate takes")
    smoke: Path = port(PortType.SMOKE, "what a real server made of the candidate")
    model: Path = port(PortType.MODEL, "the candidate, for its precision and facts")
    rows: Path = port(PortType.ROWS, "evaluation rows, for the texts of disagreements")


@dataclass(frozen=True)
class Outputs:
    """What was found."""

    verdict: Path = port(PortType.VERDICT, "verdict.json")
    report: Path = port(PortType.REPORT, "report.html of this lane")


class SlicePolicy(Closed):
    """What a part of the rows may lose; it refuses only on demonstrated harm."""

    by: str | None = Field(
        None,
        min_length=1,
        description="class, or a column of the evaluation rows: each of its values is a slice; left out, none",
    )
    max_drop_points: float = Field(
        5.0, ge=0, lt=100, description="points of right rows that a slice may lose; more must be shown to refuse"
    )
    min_rows: int = Field(30, ge=1, description="rows below which a slice is thin: listed, never judged")


class Policy(Closed):
    """The thresholds a candidate must meet; one left out is not checked."""

    metric: str | None = Field(
        None, description="metric that decides, one of the task's: accuracy or macro_f1; left out, its primary one"
    )
    unit: str | None = Field(
        None,
        min_length=1,
        description="column of the evaluation rows that names what belongs together, such as a conversation; left out, "
        "each row stands for itself",
    )
    max_drop_points: float = Field(1.0, ge=0, le=100, description="points (100 × share) of the metric that may be lost")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="one-sided confidence of the paired interval")
    min_speedup: float | None = Field(None, gt=0, description="over PyTorch eager in the first measured cell")
    min_gain_over_unquantized: float | None = Field(
        None, gt=0, description="over the fastest unquantized model on the runtime, in the first cell"
    )
    max_size_ratio: float | None = Field(None, gt=0, description="the graphs' bytes over the checkpoint's safetensors")
    max_peak_rss_bytes: int | None = Field(
        None, gt=0, description="memory at its peak of a process that loads and runs the candidate alone"
    )
    max_load_seconds: float | None = Field(
        None, gt=0, description="from file to the first answer in a fresh process, imports left out"
    )
    max_cost_per_million_texts: float | None = Field(
        None, gt=0, description="in the currency of the deployment's prices, tokenising left out"
    )
    max_batch_flips: int | None = Field(
        None,
        ge=0,
        description="predictions of the 256 rows tried that may change with their batch",
    )
    max_drop_vs_champion_points: float | None = Field(
        None, ge=0, le=100, description="points of the metric that may be lost against what the channel serves now"
    )
    max_drop_vs_reference_points: float | None = Field(
        None,
        ge=0,
        le=100,
        description="the same against the channel's reference, which a person alone moves: modelmill channel reference",
    )
    max_served_p95_ratio: float | None = Field(
        None,
        gt=0,
        description="of one text's time in the server over its time in one process, 95th percentiles, tokenising on "
        "both sides; inconclusive where no server was tried",
    )
    min_metric: float | None = Field(None, ge=0, le=1, description="share that the candidate's metric must reach")
    min_rows: int = Field(50, ge=1, description="evaluation rows below which no verdict is given")
    max_leaked_share: float = Field(
        0.05, ge=0, le=1, description="share of the evaluation rows whose text may also stand among those that chose"
    )
    max_class_shift: float | None = Field(
        None,
        ge=0,
        le=1,
        description="distance of the classes' shares from the training rows'; more must be shown to refuse",
    )
    max_class_shift_vs_published: float | None = Field(
        None,
        ge=0,
        le=1,
        description="the same from the evaluation and the training rows of what the channel serves now",
    )
    slices: SlicePolicy = Field(
        default_factory=lambda: SlicePolicy.model_validate({}), description="what each part of the rows may lose"
    )

    @property
    def against(self) -> list[Opponent]:
        """Whom the policy holds the candidate against besides the baseline."""
        asked = {
            Opponent.CHAMPION: (self.max_drop_vs_champion_points, self.max_class_shift_vs_published),
            Opponent.REFERENCE: (self.max_drop_vs_reference_points,),
        }
        return [opponent for opponent, limits in asked.items() if any(limit is not None for limit in limits)]


class Settings(StepSettings):
    """What to judge by."""

    task: str = Field(description="the ML task: text-classification")
    target: str = Field(description="the lane's name, for the verdict and the report")
    policy: Policy
    core_hour: float | None = Field(
        None, gt=0, description="price of one core for an hour, from the deployment, where a cost is judged"
    )
    currency: str = Field("USD", description="of the price")


STEP = StepContract(
    name="gate",
    version=7,
    summary="Judge the candidate by paired non-inferiority on the same rows, and by speed and size.",
    inputs=Inputs,
    outputs=Outputs,
    settings=Settings,
    function="modelmill.steps.gate.run:run",
    kind=Kind.MEASURED,
    light=True,
)
PARTS = (STEP,)
