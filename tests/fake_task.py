"""A task whose models are two graphs: an encoder, and a head that reads what the encoder gives.

It is a real task on real small models, not a stand-in: every step of the line runs on it, so that models of several
graphs (generation, speech) meet no step that thinks of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modelmill.core.model import Chain, Execution, Stage
from modelmill.tasks.base import ExportUnit
from modelmill.tasks.text_classification import TextClassification
from small_models import make_checkpoint

ENCODER, HEAD = "encoder", "head"


class PooledHead(torch.nn.Module):
    """What stands behind the encoder: dropout and the classifier, over the pooled state."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.dropout, self.classifier = model.dropout, model.classifier

    def forward(self, pooler_output: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits, shape (batch, classes), of pooled states, shape (batch, hidden)."""
        return {"logits": self.classifier(self.dropout(pooler_output))}


class FakeTask(TextClassification):
    """Text classification by a BERT that is exported as encoder and head."""

    name = "fake-two-graphs"

    def export_units(self, model: Any, processor: Any | None = None) -> list[ExportUnit]:
        whole = super().export_units(model, processor)[0]
        axes = {name: whole.dynamic_axes[name] for name in whole.inputs}
        states = {"last_hidden_state": {0: "batch", 1: "sequence"}, "pooler_output": {0: "batch"}}
        head = PooledHead(model).eval()
        return [
            ExportUnit(ENCODER, model.bert, whole.inputs, tuple(states), {**axes, **states}),
            ExportUnit(
                HEAD, head, ("pooler_output",), ("logits",), {"pooler_output": {0: "batch"}, "logits": {0: "batch"}}
            ),
        ]

    def execution(self, inputs: Mapping[str, Sequence[str]]) -> Execution:
        """The encoder's pooled state is called ``pooled`` between the graphs."""
        encoder = Stage(
            component=ENCODER, feeds={name: name for name in inputs[ENCODER]}, gives={"pooler_output": "pooled"}
        )
        head = Stage(component=HEAD, feeds={"pooler_output": "pooled"}, gives={"logits": "logits"})
        return Chain(stages=[encoder, head])


def make_fake_checkpoint(directory: Path, labels: Sequence[str] = ("alpha", "beta", "gamma")) -> Path:
    """A random checkpoint that the task can train, export and run."""
    return make_checkpoint(directory, "bert", labels=list(labels))
