"""Fine-tune a checkpoint, or take it as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

from modelmill.core import hardware
from modelmill.core.contract import Report
from modelmill.core.errors import DataError, ModelError
from modelmill.core.progress import Progress
from modelmill.core.rows import Row, read_dataset, read_rows
from modelmill.steps.retrain import output
from modelmill.steps.retrain.contract import FineTune, Inputs, NoTraining, Outputs, Settings
from modelmill.steps.retrain.labels import labels_of, require_same, same_labels
from modelmill.steps.retrain.lengths import max_length
from modelmill.steps.retrain.snapshots import Snapshots
from modelmill.steps.retrain.training import EncodedRows, FineTuning, torch_threads
from modelmill.targets.pytorch import check_vocabulary, listed, load_checkpoint, load_processor, load_weights
from modelmill.tasks import registry
from modelmill.tasks.base import Task

# amx_bf16 and avx512_bf16 (x86), bf16 (Arm): elsewhere torch computes bfloat16 by converting, slower than float32.
_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
_ENCODED_AT_ONCE = 1024


def run(inputs: Inputs, outputs: Outputs, settings: Settings, progress: Progress) -> Report:
    """Write the checkpoint that all lanes start from.

    Args:
        inputs: The fetched model, train rows and tune rows.
        outputs: An empty directory for the checkpoint, and the scratch directory of the training.
        settings: Task, method, and the length at which texts are cut.
        progress: Is told each epoch's loss and metric.

    Returns:
        Facts: method, labels, max_length, and for a training steps, epochs, losses, metric by epoch, best epoch,
        precision and threads.

    Raises:
        ModelError: The model is broken, its labels are not the data's (method none), the training diverged or
            does not fit into memory.
        DataError: There are no rows to train on, or all have one label.
    """
    task = registry.get(settings.task)
    if isinstance(settings.retrain, NoTraining):
        return _take(task, inputs, outputs, settings)
    try:
        with torch_threads(hardware.threads()):
            return _fine_tune(task, inputs, outputs, settings, settings.retrain, progress)
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        what = f"the training does not fit into memory: {str(error).splitlines()[0][:200]}"
        fix = "lower retrain.batch_size or model.max_length, or give the retrain step more memory"
        raise ModelError(what, where="retrain", fix=fix) from error


def _take(task: Task, inputs: Inputs, outputs: Outputs, settings: Settings) -> Report:
    model, processor = load_checkpoint(inputs.model, task)
    dataset = read_dataset(inputs.train)
    labels = require_same(labels_of(model.config), dataset.labels) if dataset.labels else []
    length = max_length(inputs.model, model, processor, settings.max_length)
    output.copy_untrained(inputs.model, outputs.checkpoint, labels)
    output.write_tokenizer(outputs.checkpoint, processor, length, task, list(read_rows(inputs.train)))
    return Report(facts={"method": "none", "labels": len(labels), "max_length": length})


def _fine_tune(
    task: Task, inputs: Inputs, outputs: Outputs, settings: Settings, method: FineTune, progress: Progress
) -> Report:
    rows, tune_rows = list(read_rows(inputs.train)), list(read_rows(inputs.tune))
    if not rows:
        what = "there are no rows to train on"
        raise DataError(what, where=str(inputs.train), fix="give data.train a split with rows, or raise its limit")
    if len(read_dataset(inputs.train).labels) < 2:
        what = "the train rows have fewer than two labels, so there is nothing to tell apart"
        raise DataError(what, where=str(inputs.train), fix="give data.train a split with rows of every label")
    model, labels, anew = _prepared(task, inputs, method.seed)
    processor = load_processor(inputs.model)
    check_vocabulary(model, processor, inputs.model)
    length = max_length(inputs.model, model, processor, settings.max_length)
    train = _encoded(task, processor, rows, labels, length, progress)
    tune = _encoded(task, processor, tune_rows, labels, length, progress)
    precision = "bfloat16" if _bfloat16(method) else "float32"
    progress.fact(
        f"trains on {len(rows)} rows of {max(train.lengths)} tokens at most, in {precision} "
        f"on {torch.get_num_threads()} threads"
    )
    training = FineTuning(
        model, processor, task, labels, method, anew=anew, bfloat16=precision == "bfloat16", progress=progress
    )
    place = training.run(train, tune, Snapshots(outputs.progress, progress))
    output.write_trained(outputs.checkpoint, model)
    output.write_tokenizer(outputs.checkpoint, processor, length, task, rows)
    return Report(
        facts={
            "method": "fine-tune",
            "labels": len(labels),
            "max_length": length,
            "steps": place.step,
            "epochs": len(place.losses),
            "best_epoch": None if place.best_epoch is None else place.best_epoch + 1,
            "losses": list(place.losses),
            f"tune_{task.metric.name}": list(place.tuned),
            "precision": precision,
            "threads": torch.get_num_threads(),
        }
    )


def _prepared(task: Task, inputs: Inputs, seed: int) -> tuple[Any, list[str], set[str]]:
    """The model, its labels and the names of weights that start anew.

    The model keeps its head where model and data mean the same labels, and is given a new one otherwise.

    Raises:
        ModelError: Weights of the model's body are missing or have other shapes.
    """
    data = read_dataset(inputs.train).labels
    torch.manual_seed(seed)
    model, absent = load_weights(inputs.model, task)
    labels, anew = same_labels(labels_of(model.config), data), set[str]()
    if labels is None or absent:
        labels = list(data)
        torch.manual_seed(seed)
        model, absent = load_weights(inputs.model, task, **_named(labels))
        head = _head(model, absent)
        # A pooler is often left out of a pretrained checkpoint; anything else of the body is not.
        body = {name: wrong for name, wrong in absent.items() if name not in head and "pooler" not in name}
        if body:
            what = f"the weights do not fill the model: {listed(body)}"
            fix = "take a whole checkpoint, whose config.json is the one that its weights were saved with"
            raise ModelError(what, where=str(inputs.model / "model.safetensors"), fix=fix)
        _renew(task, model, head)
        anew = head | set(absent)
    for name, value in _named(labels).items():
        setattr(model.config, name, value)
    return model, labels, anew


def _named(labels: list[str]) -> dict[str, Any]:
    """Labels as config.json has them, and a loss that is cross-entropy over them, whatever it was before."""
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def _head(model: Any, absent: Mapping[str, str]) -> set[str]:
    """The names of the weights that turn the body's output into logits."""
    if model.base_model is model:
        return set(absent)
    body = {id(weight) for weight in model.base_model.parameters()}
    return {name for name, weight in model.named_parameters() if id(weight) not in body}


def _renew(task: Task, model: Any, head: set[str]) -> None:
    """Give the head new weights, as the architecture initialises them.

    from_pretrained keeps a head of equal shape, and a two-class head for other classes is no start.
    """
    fresh = dict(getattr(transformers, task.auto_model).from_config(model.config).named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in head:
                weight.copy_(fresh[name])


def _encoded(
    task: Task, processor: Any, rows: list[Row], labels: list[str], length: int, progress: Progress
) -> EncodedRows:
    features = []
    with progress.bar("tokenise", len(rows), "rows") as bar:
        for start in range(0, len(rows), _ENCODED_AT_ONCE):
            part = rows[start : start + _ENCODED_AT_ONCE]
            features += task.encode(processor, part, length)
            bar.advance(len(part))
    return EncodedRows(features=features, references=task.references(rows, labels))


def _bfloat16(method: FineTune) -> bool:
    if method.precision == "auto":
        return bool(_BFLOAT16 & set(hardware.cpu().instruction_set))
    return method.precision == "bfloat16"


def _out_of_memory(error: BaseException) -> bool:
    told = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in told)
