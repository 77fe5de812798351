"""What a killed training leaves to its successor: weights, optimizer state and where it was. No pickle.

A snapshot is a directory that appears under its name when all of it is written, so that half of one is never read.
What randomness a step needs is drawn from the seed and the step's number, so no generator's state is kept.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from modelmill.core.contract import Closed
from modelmill.core.manifest import write_json
from modelmill.core.progress import Progress

_WRITING = "writing-"
_STEP = "step-"
_BEST = "best-"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Place(Closed):
    """``place.json``: where the training is."""

    format: int = 1
    steps: int = Field(description="steps of the whole training; a snapshot of another length is not resumed")
    step: int = Field(0, description="steps done")
    loss_sum: float = Field(0.0, description="sum of the losses of the present epoch's steps")
    losses: list[float] = Field(default_factory=list, description="mean loss of each finished epoch")
    tuned: list[float] = Field(default_factory=list, description="the primary metric on the tune rows by epoch")
    best_epoch: int | None = Field(None, description="the finished epoch (from 0) that is best on the tune rows")


class Snapshots:
    """The snapshots below a scratch port.

    Args:
        directory: The scratch port.
        progress: Told of every finished snapshot, which makes it durable.
    """

    def __init__(self, directory: Path, progress: Progress) -> None:
        self._directory, self._progress = directory, progress

    def save(self, model: Any, optimizer: torch.optim.Optimizer, place: Place) -> None:
        """Keep where the training is, and remove what it no longer needs."""
        writing = self._begin()
        save_file(_weights(model), writing / "weights.safetensors")
        save_file(_moments(model, optimizer), writing / "optimizer.safetensors")
        write_json(writing / "place.json", place.model_dump(mode="json"))
        kept = {self._end(writing, f"{_STEP}{place.step:09d}")}
        if place.best_epoch is not None:
            kept.add(self._best(place.best_epoch))
        for other in self._directory.iterdir():
            if other not in kept:
                shutil.rmtree(other)

    def save_best(self, model: Any, epoch: int) -> None:
        """Keep the weights of the best epoch so far."""
        writing = self._begin()
        save_file(_weights(model), writing / "weights.safetensors")
        self._end(writing, self._best(epoch).name)

    def load(self, model: Any, optimizer: torch.optim.Optimizer, steps: int) -> Place | None:
        """Put model and optimizer where the latest whole snapshot was; None where there is none."""
        for path in sorted(self._directory.glob(f"{_STEP}*"), reverse=True):
            try:
                place = Place.model_validate_json((path / "place.json").read_bytes())
                weights = load_file(path / "weights.safetensors")
                moments = load_file(path / "optimizer.safetensors")
            except (OSError, ValidationError, SafetensorError):
                self._progress.fact(f"the training snapshot {path.name} cannot be read and is passed over")
                continue
            whole = not place.tuned or place.best_epoch is None or self._best(place.best_epoch).is_dir()
            if place.steps == steps and whole:
                _set_weights(model, weights)
                _set_moments(model, optimizer, moments)
                return place
        return None

    def load_best(self, model: Any, epoch: int) -> None:
        """Put the best epoch's weights into the model."""
        _set_weights(model, load_file(self._best(epoch) / "weights.safetensors"))

    def _best(self, epoch: int) -> Path:
        return self._directory / f"{_BEST}{epoch:04d}"

    def _begin(self) -> Path:
        writing = self._directory / f"{_WRITING}snapshot"
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir(parents=True)
        return writing

    def _end(self, writing: Path, name: str) -> Path:
        path = self._directory / name
        shutil.rmtree(path, ignore_errors=True)
        writing.rename(path)
        self._progress.saved(path)
        return path


def _weights(model: Any) -> dict[str, torch.Tensor]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().contiguous() for name, tensor in named}


def _set_weights(model: Any, weights: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            tensor.copy_(weights[name])


def _moments(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{moment}:{name}": optimizer.state[weight][moment].contiguous()
        for name, weight in model.named_parameters()
        if weight in optimizer.state
        for moment in _MOMENTS
    }


def _set_moments(model: Any, optimizer: torch.optim.Optimizer, moments: dict[str, torch.Tensor]) -> None:
    for name, weight in model.named_parameters():
        if f"step:{name}" in moments:
            optimizer.state[weight] = {moment: moments[f"{moment}:{name}"] for moment in _MOMENTS}
