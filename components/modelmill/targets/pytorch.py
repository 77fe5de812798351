"""PyTorch, eager: how a checkpoint's user runs it today, and what every candidate is held against.

float32 on a CPU, fp16 on a GPU. Eager means not compiled. Attention is transformers' default for the architecture
(scaled-dot-product attention where it has one), because that is what ``from_pretrained`` gives its user.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from modelmill.core.errors import ModelError

if TYPE_CHECKING:
    from modelmill.tasks.base import Task

# A config.json comes from outside and transformers hands its values to constructors: which error a wrong one ends
# in depends on the field (hidden_act: KeyError; hidden_size: RuntimeError, ValueError or StrictDataclassError;
# quantization_config: ImportError; a list for an object: TypeError).
_BROKEN = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, ImportError,
    SafetensorError, StrictDataclassError,
)  # fmt: skip

# Tokenizers say int(1e30) when nobody told them. No encoder takes a million tokens.
_ENDLESS = 1_000_000
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' loading reports and bars off stderr; what they would say is raised as an error here."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def load_checkpoint(directory: Path, task: Task) -> tuple[Any, Any]:
    """Load a checkpoint whose weights are all there.

    Args:
        directory: config.json, model.safetensors (or shards with their index), tokenizer files.
        task: Names transformers' class that loads it.

    Returns:
        The model (torch module, float32, eval mode, on the CPU) and its processor (a transformers tokenizer).

    Raises:
        ModelError: The checkpoint is broken: a weight is missing, has another shape or is not finite, the
            architecture is unknown or has no head for the task, or the tokenizer is missing or does not fit.
    """
    model, absent = load_weights(directory, task)
    if absent:
        what = f"the weights do not fill the model: {listed(absent)}"
        fix = "fine-tune it first (retrain: {method: fine-tune}), or take a checkpoint of this task"
        raise ModelError(what, where=str(directory / _WEIGHTS[0]), fix=fix)
    processor = load_processor(directory)
    check_vocabulary(model, processor, directory)
    return model, processor


def load_weights(directory: Path, task: Task, **config: Any) -> tuple[Any, dict[str, str]]:
    """Load a model for a task; what its checkpoint lacks is newly initialised from torch's global generator.

    Args:
        directory: The checkpoint.
        task: Names transformers' class that loads it.
        config: Values that replace config.json's.

    Returns:
        The model (float32, eval mode), and weight → what is wrong, for each that is missing or has another shape.

    Raises:
        ModelError: As for `load_checkpoint`, missing and mismatched weights apart.
    """
    if not (directory / "config.json").is_file():
        what = "the model has no config.json"
        raise ModelError(what, where=str(directory), fix="give a directory in Hugging Face layout")
    if not any((directory / name).is_file() for name in _WEIGHTS):
        what = "the model has no model.safetensors; other formats of weights are not read, because pickle runs code"
        fix = "load it where it is trusted and save it with save_pretrained(directory), which writes safetensors"
        raise ModelError(what, where=str(directory), fix=fix)
    try:
        with quiet_transformers():
            model, found = getattr(transformers, task.auto_model).from_pretrained(
                directory,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **config,
            )
    except _BROKEN as error:
        what = f"transformers cannot load the model: {_first_line(error)}"
        fix = f"check config.json and model.safetensors; {task.auto_model} must know the architecture"
        raise ModelError(what, where=str(directory), fix=fix) from error
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            what = f"the weight {name} holds values that are not finite"
            fix = "take an undamaged copy: a model with such a weight answers nonsense"
            raise ModelError(what, where=str(directory / _WEIGHTS[0]), fix=fix)
    absent = dict.fromkeys(found["missing_keys"], "is missing")
    absent |= {name: f"is {tuple(has)}, not {tuple(wants)}" for name, has, wants in found["mismatched_keys"]}
    return model.eval(), dict(sorted(absent.items()))


def load_processor(directory: Path) -> Any:
    """The checkpoint's tokenizer.

    Raises:
        ModelError: There is none, or its files are broken.
    """
    try:
        with quiet_transformers():
            processor = transformers.AutoTokenizer.from_pretrained(
                directory, trust_remote_code=False, local_files_only=True
            )
    except _BROKEN as error:
        what = f"transformers cannot load the tokenizer: {_first_line(error)}"
        fix = "check tokenizer.json and tokenizer_config.json"
        raise ModelError(what, where=str(directory), fix=fix) from error
    # Without its files transformers 5 makes a tokenizer of the special tokens alone, and says nothing.
    if not set(processor.get_vocab().values()) - set(processor.all_special_ids):
        what = "the model has no tokenizer: no file gives a vocabulary"
        fix = "put tokenizer.json (or the vocabulary file of its tokenizer) beside the weights"
        raise ModelError(what, where=str(directory), fix=fix)
    return processor


def check_vocabulary(model: Any, processor: Any, directory: Path) -> None:
    """Check that the model has an embedding for every token.

    Raises:
        ModelError: The tokenizer's largest token number lies past the embedding table.
    """
    size = model.get_input_embeddings().num_embeddings
    largest = max(processor.get_vocab().values())
    if largest >= size:
        what = f"the tokenizer counts to {largest}, and the embedding table has {size} rows"
        fix = "take the tokenizer that the model was trained with, or call resize_token_embeddings and save"
        raise ModelError(what, where=str(directory), fix=fix)


def positions_of(model: Any) -> int:
    """Tokens that the model has positions for; a million where its positions have no end.

    RoBERTa and its kin number positions from the padding number + 1 on, so that ``max_position_embeddings`` 514 is
    512 tokens; their embedding tables tell by their padding number.
    """
    limits = [_ENDLESS]
    configured = getattr(model.config, "max_position_embeddings", None)
    if isinstance(configured, int) and configured > 0:
        limits.append(configured)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - unused)
    return min(limits)


def max_length_of(model: Any, processor: Any) -> int:
    """Tokens at which texts are cut: the tokenizer's limit, and never more than the model has positions for.

    Raises:
        ModelError: Neither the tokenizer nor the configuration tells.
    """
    maximum = min(int(processor.model_max_length), positions_of(model))
    if maximum >= _ENDLESS:
        what = "neither the tokenizer nor the model tells how long a text may be"
        fix = "write the length there, or give model.max_length in the recipe"
        raise ModelError(what, where="tokenizer_config.json: model_max_length", fix=fix)
    return maximum


Placement = tuple[str, torch.dtype]
FLOAT32_ON_CPU: Placement = ("cpu", torch.float32)
HALF_ON_GPU: Placement = ("cuda", torch.float16)


class PytorchSession:
    """A loaded checkpoint, ready to answer in the form of `modelmill.targets.base.Session`.

    Args:
        model: As `load_checkpoint` gives it.
        processor: Its tokenizer.
        task: Says which modules are run, and in which order.
        threads: Threads of one operation. torch has one number for the process: the last session's.
        placed: The device, and the type that is computed in; the model is moved there.
    """

    def __init__(
        self, model: Any, processor: Any, task: Task, threads: int, placed: Placement = FLOAT32_ON_CPU
    ) -> None:
        torch.set_num_threads(threads)
        self._device, dtype = placed
        model = model.to(device=self._device, dtype=dtype)
        self._units = {unit.role: unit for unit in task.export_units(model, processor)}
        self._execution = task.execution({role: unit.inputs for role, unit in self._units.items()})

    def run(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the model on one padded batch.

        Args:
            batch: Input name → int64, shape (batch, sequence); columns that the model does not take are ignored.

        Returns:
            Value name → array: ``logits``, float32, shape (batch, classes).
        """
        values = {name: torch.from_numpy(column).to(self._device) for name, column in batch.items()}
        given: dict[str, np.ndarray] = {}
        with torch.inference_mode():
            for stage in self._execution.stages:
                unit = self._units[stage.component]
                outputs = unit.module(**{name: values[value] for name, value in stage.feeds.items()})
                for name, value in stage.gives.items():
                    values[value] = outputs[name]
                    # Copied back, which waits for the device: a time that ends before it would be none.
                    given[value] = outputs[name].float().cpu().numpy()
        return given


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"


def listed(absent: Mapping[str, str]) -> str:
    """The first three of the weights that `load_weights` did not find, in words."""
    rest = f", and {len(absent) - 3} more" if len(absent) > 3 else ""
    return "; ".join([f"{name} {wrong}" for name, wrong in absent.items()][:3]) + rest
