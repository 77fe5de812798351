"""retrain as a Kubeflow component, for a pipeline of your own."""

# kfp reads the annotations themselves: no `from __future__ import annotations` here.
from typing import Optional

from kfp import dsl

from modelmill.core.image import CPU_IMAGE


@dsl.container_component
def retrain(
    model: dsl.Input[dsl.Model],
    train: dsl.Input[dsl.Dataset],
    tune: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    task: str,
    retrain_method: str,
    retrain_epochs: int = 3,
    retrain_batch_size: int = 32,
    retrain_learning_rate: float = 0.0002,
    retrain_head_learning_rate: Optional[float] = None,
    retrain_weight_decay: float = 0.01,
    retrain_warmup: float = 0.1,
    retrain_patience: int = 2,
    retrain_precision: str = "auto",
    retrain_seed: int = 0,
    max_length: Optional[int] = None,
) -> dsl.ContainerSpec:
    """Fine-tune the model on the train rows and keep the checkpoint that is best on the tune rows.

    Args:
        model: the fetched model.
        train: rows to train on.
        tune: rows that stop the training early.
        checkpoint: the best checkpoint: config.json with id2label, safetensors, tokenizer.
        metrics: the step's numbers.
        task: the ML task: text-classification.
        retrain_method: none (take the model as it is; its labels must be the data's), or fine-tune (train all weights
            with AdamW and a linear schedule).
        retrain_epochs: passes over the train rows at most.
        retrain_batch_size: rows a step.
        retrain_learning_rate: AdamW's peak learning rate.
        retrain_head_learning_rate: the same for a head that starts anew; left out, 30 times learning_rate, up to
            6e-3.
        retrain_weight_decay: AdamW's weight decay.
        retrain_warmup: share of the steps in which the learning rate rises.
        retrain_patience: epochs without a better tune metric after which training stops.
        retrain_precision: auto is bfloat16 autocast where the CPU computes it natively.
        retrain_seed: seeds weights, order and dropout.
        max_length: tokens at which a text is cut; None: the model's maximum.
    """
    return dsl.ContainerSpec(
        image=CPU_IMAGE,
        command=["modelmill", "component", "retrain"],
        args=[
            f"--input=model={model.path}",
            f"--input=train={train.path}",
            f"--input=tune={tune.path}",
            f"--output=checkpoint={checkpoint.path}",
            "--executor-input={{$}}",
        ],
    )
