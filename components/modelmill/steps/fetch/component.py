"""fetch as a Kubeflow component, for a pipeline of your own."""

# kfp reads the annotations themselves: no `from __future__ import annotations` here.
from typing import Optional

from kfp import dsl

from modelmill.core.image import CPU_IMAGE


@dsl.container_component
def fetch(
    model: dsl.Output[dsl.Model],
    train: dsl.Output[dsl.Dataset],
    tune: dsl.Output[dsl.Dataset],
    calibrate: dsl.Output[dsl.Dataset],
    evaluate: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    task: str,
    model_source: str,
    data_source: str,
    model_sha256: dict = {},
    model_pin: Optional[str] = None,
    data_reader: str = "files",
    data_columns: dict = {},
    data_train: str = "train",
    data_tune: str = "0.15",
    data_calibrate: str = "train",
    data_evaluate: str = "test",
    data_keep: list = [],
    data_limit: dict = {},
    data_seed: int = 0,
    data_pin: Optional[str] = None,
    mounts: Optional[list] = None,
) -> dsl.ContainerSpec:
    """Fetch a model and rows by pinned revision and digest, check both, and divide the rows by role.

    Args:
        model: the model as its source has it: config.json, model.safetensors, tokenizer.
        train: rows to train on.
        tune: rows for early stopping and search; held out from train.
        calibrate: rows whose activations set quantization ranges.
        evaluate: rows that judge: given to evaluate and gate alone.
        metrics: the step's numbers.
        task: the ML task: text-classification.
        model_source: package:, hf://, s3:// or file: reference.
        data_source: package:, hf://, s3:// or file: reference.
        model_sha256: file → sha256 that it must have.
        model_pin: set by resolve: digest of the files, or the Hub's commit.
        data_reader: files, or botocore-operations.
        data_columns: the task's column → the data's column.
        data_train: the split to train on.
        data_tune: a split, or a share held out from train.
        data_calibrate: the split whose activations set quantization ranges.
        data_evaluate: the split that judges.
        data_keep: further columns of the data that evaluation rows keep: what the gate slices by, or units.
        data_limit: role → rows at most, chosen by the seed.
        data_seed: of who is held out and who is chosen.
        data_pin: set by resolve: digest of the files, or the Hub's commit.
        mounts: directories that file: sources may lie in; None allows any (one machine, one user).
    """
    return dsl.ContainerSpec(
        image=CPU_IMAGE,
        command=["modelmill", "component", "fetch"],
        args=[
            f"--output=model={model.path}",
            f"--output=train={train.path}",
            f"--output=tune={tune.path}",
            f"--output=calibrate={calibrate.path}",
            f"--output=evaluate={evaluate.path}",
            "--executor-input={{$}}",
        ],
    )
