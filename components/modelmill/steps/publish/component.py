"""publish as a Kubeflow component, for a pipeline of your own."""

# kfp reads the annotations themselves: no `from __future__ import annotations` here.
from typing import Optional

from kfp import dsl

from modelmill.core.image import CPU_IMAGE


@dsl.container_component
def publish(
    models: dsl.Input[dsl.Model],
    choices: dsl.Input[dsl.Artifact],
    verdicts: dsl.Input[dsl.Artifact],
    bundle: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    store: str,
    model: str,
    channel: str,
    recipe: dict = {},
    texts: bool = False,
    unavailable: dict = {},
    signer: Optional[str] = None,
    keyless: Optional[dict] = None,
    run: Optional[str] = None,
    git: Optional[dict] = None,
    mirrors: Optional[dict] = None,
) -> dsl.ContainerSpec:
    """Assemble and sign the bundle of the passed lanes and move the channel to its digest.

    Args:
        models: the candidates, of one lane.
        choices: how each was quantized, of one lane.
        verdicts: what the gate said of each, of one lane.
        bundle: models of the passed lanes, tokenizer, card, report, signature.
        metrics: the step's numbers.
        store: where the registry and the bundles live: s3://BUCKET/PREFIX, or a directory.
        model: the model's name in the registry.
        channel: the channel that moves to the bundle.
        recipe: the recipe as it was run, for the card and the report; empty: not told.
        texts: whether texts of the data may stand in the bundle's report.
        unavailable: target → what failed outside, so that its lane was not judged.
        signer: set by resolve: who signs the bundle, a key by its fingerprint or an identity; none: nobody.
        keyless: who signs without a key, by Sigstore; left out: a key does, or nobody.
        run: the run, for the channel's history.
        git: the Git repository of overlays that the promotion is committed to; left out: none.
        mirrors: where the registration is told besides: MLflow, the Hugging Face Hub; left out: nowhere.
    """
    return dsl.ContainerSpec(
        image=CPU_IMAGE,
        command=["modelmill", "component", "publish"],
        args=[
            f"--input=models={models.path}",
            f"--input=choices={choices.path}",
            f"--input=verdicts={verdicts.path}",
            f"--output=bundle={bundle.path}",
            "--executor-input={{$}}",
        ],
    )
