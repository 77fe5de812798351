"""What a process that times models is asked, and what it answers: documents, and lines of JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from modelmill.core import errors
from modelmill.core.contract import Closed
from modelmill.core.errors import ModelmillError
from modelmill.core.evidence import Cell
from modelmill.core.model import MicroBatching
from modelmill.measuring.rounds import Rounds
from modelmill.targets.base import Runtime


class TimedModel(Closed):
    """One model to time."""

    name: str
    path: Path = Field(description="a model artifact, or a checkpoint")
    runtime: Runtime | None = Field(description="runs a model artifact; null: a checkpoint, which PyTorch runs")
    task: str = Field(description="a checkpoint's; an artifact names its own")
    gpu: bool = Field(False, description="whether a checkpoint runs on the GPU")
    micro_batching: MicroBatching | None = Field(None, description="null: as model.json says")
    same_as: str | None = Field(None, description="whose session it shares: it is that model")


class Job(Closed):
    """What stays the same while a process lives."""

    models: list[TimedModel] = Field(min_length=1)
    threads: int
    seed: int = Field(description="of tokens, texts and order")


class CellWork(Closed):
    """A forward pass over a batch of one shape."""

    kind: Literal["cell"] = "cell"
    cell: Cell

    @property
    def label(self) -> str:
        """For people."""
        return f"batch {self.cell.batch_size}, length {self.cell.sequence_length}"


class TextsWork(Closed):
    """Texts at their real lengths: one a call, or in the batch plan that evaluate predicts in."""

    kind: Literal["texts"] = "texts"
    rows: Path = Field(description="one row a line")
    single: bool

    @property
    def label(self) -> str:
        """For people."""
        return "one text at a time" if self.single else "throughput"


Work = Annotated[CellWork | TextsWork, Field(discriminator="kind")]


class Ask(Closed):
    """One line to the process."""

    work: Work
    seconds: float
    part: int = Field(description="number of the process")
    parts: int = Field(description="processes in all")


class Opened(Closed):
    """A model as it was found."""

    task: str
    max_length: int
    size_bytes: int
    precision: str


class Timings(Closed):
    """What was timed in one process."""

    seconds: dict[str, list[float]]
    turn: int
    passes: float = Field(1.0, description="how often all texts were run; a part of them counts by its tokens")

    def rounds(self) -> Rounds:
        """For statistics."""
        return Rounds({name: np.asarray(values, np.float64) for name, values in self.seconds.items()}, self.turn)


class Failure(Closed):
    """An error that ended the process's work."""

    kind: str
    what: str
    where: str | None
    fix: str | None

    @classmethod
    def of(cls, error: ModelmillError) -> Failure:
        """An error as a document."""
        return cls(kind=type(error).__name__, what=error.what, where=error.where, fix=error.fix)

    def error(self) -> ModelmillError:
        """The document as an error, to be raised."""
        kind = getattr(errors, self.kind, ModelmillError)
        return kind(self.what, where=self.where, fix=self.fix)


class Line(Closed):
    """One line from the process: exactly one of these."""

    opened: dict[str, Opened] | None = None
    advance: float | None = None
    timings: Timings | None = None
    failure: Failure | None = None
