"""The contract of retrain: fine-tune a checkpoint, or take it as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from modelmill.core.contract import Closed, KeyOn, PortType, StepContract, port, scratch
from modelmill.step_settings import StepSettings

_HEAD_LEARNING_RATE = 6e-3


@dataclass(frozen=True)
class Inputs:
    """A fetched model and the rows that may choose weights."""

    model: Path = port(PortType.CHECKPOINT, "the fetched model")
    train: Path = port(PortType.ROWS, "rows to train on")
    tune: Path = port(PortType.ROWS, "rows that stop the training early")


@dataclass(frozen=True)
class Outputs:
    """The model to make small and fast."""

    checkpoint: Path = port(
        PortType.CHECKPOINT, "the best checkpoint: config.json with id2label, safetensors, tokenizer"
    )
    progress: Path = scratch("training checkpoints, for a killed attempt's successor")


class NoTraining(Closed):
    """Take the model as it is; its labels must be the data's."""

    method: Literal["none"]


class FineTune(Closed):
    """Train all weights with AdamW and a linear schedule."""

    method: Literal["fine-tune"]
    epochs: int = Field(3, ge=1, le=1000, description="passes over the train rows at most")
    batch_size: int = Field(32, ge=1, le=4096, description="rows a step")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="AdamW's peak learning rate")
    head_learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="the same for a head that starts anew; left out, 30 times learning_rate, up to 6e-3",
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    patience: int = Field(2, ge=1, description="epochs without a better tune metric after which training stops")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto is bfloat16 autocast where the CPU computes it natively"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seeds weights, order and dropout")

    @property
    def peak_of_new_weights(self) -> float:
        """AdamW's peak learning rate for weights that start anew."""
        return self.head_learning_rate or max(self.learning_rate, min(30 * self.learning_rate, _HEAD_LEARNING_RATE))


Method = Annotated[NoTraining | FineTune, Field(discriminator="method")]


class Settings(StepSettings):
    """How to retrain."""

    task: str = Field(description="the ML task: text-classification")
    retrain: Method
    max_length: int | None = Field(None, ge=2, description="tokens at which a text is cut; None: the model's maximum")


STEP = StepContract(
    name="retrain",
    version=2,
    summary="Fine-tune the model on the train rows and keep the checkpoint that is best on the tune rows.",
    inputs=Inputs,
    outputs=Outputs,
    settings=Settings,
    function="modelmill.steps.retrain.run:run",
    packages=("torch", "transformers", "tokenizers", "safetensors", "numpy"),
    key_on=frozenset({KeyOn.THREADS, KeyOn.INSTRUCTION_SET}),
)
PARTS = (STEP,)
