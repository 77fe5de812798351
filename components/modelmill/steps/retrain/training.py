"""The training loop: AdamW, a linear schedule, early stopping; the same bytes whether or not it was interrupted.

Plain torch rather than transformers' Trainer or accelerate: Trainer's checkpoints are pickles and appear file by
file, and on one CPU accelerate is `torch.autocast` and no more. See the step's README.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from modelmill.core.errors import ModelError
from modelmill.core.evidence import Direction
from modelmill.core.progress import Progress
from modelmill.steps.retrain.batches import epoch_plan, sorted_plan, steps_of
from modelmill.steps.retrain.contract import FineTune
from modelmill.steps.retrain.embeddings import occurring_tokens
from modelmill.steps.retrain.snapshots import Place, Snapshots
from modelmill.targets.pytorch import PytorchSession
from modelmill.tasks.base import Features

if TYPE_CHECKING:
    from modelmill.tasks.base import Task

SNAPSHOT_SECONDS = 45.0
"""Training time between snapshots: with what a step and a snapshot take, about a minute is lost at most."""
SNAPSHOT_SHARE = 10
"""Training takes at least this many times as long as the snapshots of it, where they are slow to save."""
_MAX_NORM = 1.0
"""Gradients are clipped to this Euclidean norm, as transformers' Trainer does by default."""
_TUNE_BATCH_SIZE = 64


@dataclass(frozen=True)
class EncodedRows:
    """Rows as the model takes them.

    Attributes:
        features: One entry a row.
        references: int64, shape (rows, …), as `Task.references` gives them.
    """

    features: Sequence[Features]
    references: np.ndarray

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row["input_ids"]) for row in self.features]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads, and leave its thread count and generator as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


class FineTuning:
    """One training.

    Args:
        model: Trained in place.
        processor: Its tokenizer.
        task: Collates, decodes and scores.
        labels: In the order of the model's outputs.
        settings: How to train.
        anew: Names of the weights that no one has trained yet.
        bfloat16: Whether products are computed in bfloat16 (autocast; weights and sums stay float32).
        progress: Where it reports to.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        task: Task,
        labels: Sequence[str],
        settings: FineTune,
        *,
        anew: Collection[str],
        bfloat16: bool,
        progress: Progress,
    ) -> None:
        self._model, self._processor, self._task, self._labels = model, processor, task, labels
        self._settings, self._anew, self._bfloat16, self._progress = settings, anew, bfloat16, progress
        self._inputs = task.export_units(model, processor)[0].inputs

    def run(self, train: EncodedRows, tune: EncodedRows, snapshots: Snapshots) -> Place:
        """Train, and leave the model with the weights of its best epoch.

        Training stops when all epochs are done, or after ``patience`` epochs without a better primary metric on
        the tune rows (of equal epochs the first is best). Without tune rows the last epoch counts as best.

        Returns:
            Where it ended: losses and metric by epoch, and the best epoch.

        Raises:
            ModelError: The loss or a gradient stopped being finite.
        """
        with occurring_tokens(self._model, self._processor, [*train.features, *tune.features]):
            place = self._train(train, tune, snapshots)
        self._model.eval()
        return place

    def _train(self, train: EncodedRows, tune: EncodedRows, snapshots: Snapshots) -> Place:
        optimizer = _optimizer(self._model, self._settings, self._anew)
        per_epoch = steps_of(len(train.features), self._settings.batch_size)
        steps = per_epoch * self._settings.epochs
        place = snapshots.load(self._model, optimizer, steps)
        if place is None:
            place = Place(steps=steps)
        else:
            self._progress.fact(f"goes on after step {place.step} of {steps}, where a former attempt ended")
        saved_at, saving = time.monotonic(), 0.0
        with self._progress.bar("fine-tune", steps, "steps") as bar:
            bar.advance(place.step)
            while place.step < steps and not self._exhausted(place):
                plan = epoch_plan(
                    train.lengths, self._settings.batch_size, self._settings.seed, place.step // per_epoch
                )
                for batch in plan[place.step % per_epoch :]:
                    loss = self._step(optimizer, train, batch, place)
                    bar.note(f"loss {loss:.3f}")
                    bar.advance()
                    place = place.model_copy(update={"step": place.step + 1, "loss_sum": place.loss_sum + loss})
                    ended = place.step % per_epoch == 0
                    if ended:
                        place = self._finish_epoch(tune, place, per_epoch, snapshots)
                    started = time.monotonic()
                    if ended or started - saved_at > max(SNAPSHOT_SECONDS, SNAPSHOT_SHARE * saving):
                        snapshots.save(self._model, optimizer, place)
                        saved_at = time.monotonic()
                        saving = saved_at - started
        if place.best_epoch is not None and place.best_epoch != len(place.losses) - 1:
            snapshots.load_best(self._model, place.best_epoch)
        return place

    def _step(self, optimizer: torch.optim.Optimizer, train: EncodedRows, batch: np.ndarray, place: Place) -> float:
        """Train on one batch; its loss."""
        settings, model = self._settings, self._model
        # Dropout draws from (seed, step) alone, so that a resumed step draws what the unbroken one drew.
        drawn = np.random.SeedSequence([settings.seed, place.step]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(drawn))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(place.step, place.steps, settings.warmup)
        columns = self._task.collate(self._processor, [train.features[index] for index in batch])
        inputs = {name: torch.from_numpy(columns[name]) for name in self._inputs}
        model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._bfloat16):
            loss = model(**inputs, labels=torch.from_numpy(train.references[batch])).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), _MAX_NORM)
        found = float(loss.detach())
        if not (math.isfinite(found) and math.isfinite(float(norm))):
            what = f"the training diverged: at step {place.step + 1} of {place.steps} the loss is {found:g}"
            what += f" and the gradient's norm {float(norm):g}"
            fix = f"lower retrain.learning_rate (it is {settings.learning_rate:g}"
            if self._anew:
                fix += f"; retrain.head_learning_rate is {settings.peak_of_new_weights:g}"
            fix += ") or raise retrain.warmup"
            raise ModelError(what, where="retrain", fix=fix)
        optimizer.step()
        return found

    def _finish_epoch(self, tune: EncodedRows, place: Place, per_epoch: int, snapshots: Snapshots) -> Place:
        """Score the tune rows, keep the weights where they are the best so far, and tell."""
        epoch = len(place.losses)
        loss = place.loss_sum / per_epoch
        words = f"epoch {epoch + 1} of {self._settings.epochs}: loss {loss:.4f}"
        tuned, best = list(place.tuned), epoch
        if tune.features:
            value = self._score(tune)
            if place.best_epoch is not None and not self._better(value, tuned[place.best_epoch]):
                best = place.best_epoch
            tuned.append(value)
            words += f", {self._task.metric.name} on the tune rows {value:.4f}"
            words += " (best so far)" if best == epoch else f" (epoch {best + 1} is best)"
            if best == epoch:
                snapshots.save_best(self._model, epoch)
        self._progress.fact(words)
        return place.model_copy(
            update={"loss_sum": 0.0, "losses": [*place.losses, loss], "tuned": tuned, "best_epoch": best}
        )

    def _better(self, value: float, than: float) -> bool:
        return value > than if self._task.metric.direction is Direction.HIGHER else value < than

    def _exhausted(self, place: Place) -> bool:
        """Whether the last epochs, ``patience`` in number, brought nothing better."""
        if not place.tuned or place.best_epoch is None:
            return False
        return len(place.tuned) - 1 - place.best_epoch >= self._settings.patience

    def _score(self, rows: EncodedRows) -> float:
        """The primary metric in float32, which is what the checkpoint is run in later."""
        task, processor = self._task, self._processor
        session = PytorchSession(self._model.eval(), processor, task, torch.get_num_threads())
        plan = sorted_plan(rows.lengths, _TUNE_BATCH_SIZE)
        outputs = [
            task.outputs_of(session.run(task.collate(processor, [rows.features[index] for index in batch])))
            for batch in plan
        ]
        predicted = task.decode(np.concatenate(outputs))
        found = task.metrics(predicted, rows.references[np.concatenate(plan)], self._labels)
        return cast("float", found[task.metric.name])


def schedule(step: int, steps: int, warmup: float) -> float:
    """The learning rate of a step as a share of its peak: a linear rise, then a linear fall towards zero.

    Args:
        step: From 0.
        steps: Of the whole training.
        warmup: Share of the steps in which it rises.

    Source: `transformers.get_linear_schedule_with_warmup`, one step on, so that no step has a rate of zero.
    """
    rising = math.ceil(steps * warmup)
    return (step + 1) / rising if step < rising else (steps - step) / (steps - rising)


def _optimizer(model: Any, settings: FineTune, anew: Collection[str]) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101); biases and normalisation weights, which have one axis, do not decay.

    Weights that start anew have a rate of their own (discriminative rates, arXiv:1801.06146): at the body's they are
    still close to random when a short training ends.
    """
    groups = []
    for new, peak in ((False, settings.learning_rate), (True, settings.peak_of_new_weights)):
        weights = [
            weight for name, weight in model.named_parameters() if weight.requires_grad and (name in anew) is new
        ]
        for decay, part in (
            (settings.weight_decay, [weight for weight in weights if weight.dim() > 1]),
            (0.0, [weight for weight in weights if weight.dim() <= 1]),
        ):
            if part:
                groups.append({"params": part, "weight_decay": decay, "peak": peak})
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
