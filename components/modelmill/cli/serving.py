"""Commands on serving: serving render, values, check."""

from __future__ import annotations

import re
from typing import Annotated

import typer
import yaml

from modelmill.cli.options import DeploymentOption, JsonOption, StoreOption, store_and_deployment
from modelmill.cli.output import print_json, print_text
from modelmill.cli.progress import stderr_progress
from modelmill.cli.registry import ByOption, ChannelArgument, ModelArgument, person
from modelmill.core import promotable
from modelmill.core.errors import StoreError, UsageError
from modelmill.runners import rollout_check
from modelmill.runners.rollout_check import NOT_HEALTHY, Asked
from modelmill.serving import kserve
from modelmill.serving.kserve import ServingValues

serving_app = typer.Typer(
    help="What a cluster needs to serve what a channel names.", no_args_is_help=True, rich_markup_mode=None
)

ImageOption = Annotated[
    str,
    typer.Option(
        "--image", metavar="NAME@sha256:…", help="The serving image: tritonserver, numpy, tokenizers, onnxruntime."
    ),
]
TargetOption = Annotated[
    str | None, typer.Option("--target", metavar="LANE", help="The lane.  [default: the bundle's only one]")
]
CanaryOption = Annotated[
    int | None,
    typer.Option("--canary", min=0, max=100, metavar="PERCENT", help="Of the traffic, for the bundle.  [default: all]"),
]
AccountOption = Annotated[
    str, typer.Option("--service-account", metavar="NAME", help="Whose credentials fetch the bundle.")
]
UriOption = Annotated[
    str | None,
    typer.Option("--uri", metavar="URI", help="Where the cluster finds the bundle.  [default: where the store has it]"),
]


def _values(
    model: str,
    channel: str,
    image: str,
    target: str | None,
    canary: int | None,
    account: str,
    uri: str | None,
    store: str | None,
) -> ServingValues:
    opened, _ = store_and_deployment(store)
    record = promotable.find_served(opened, model, channel)
    place = uri or opened.artifact_uri(record.artifact)
    if "://" not in place:
        what = f"the bundle lies in {place}, a folder of this machine, which no cluster reads"
        raise UsageError(what, where="--store", fix="name s3://BUCKET/PREFIX, or --uri where the cluster finds a copy")
    if not re.fullmatch(r"[^@\s]+@sha256:[0-9a-f]{64}", image):
        what = f"{image!r} is not pinned by its digest"
        raise UsageError(what, where="--image", fix="give NAME@sha256:…: a tag may name another image tomorrow")
    if opened.read_manifest(record.artifact) is None:
        what = f"the bundle {record.bundle} is gone from the store"
        raise StoreError(what, where=opened.uri, fix=f"modelmill channel rollback {model} {channel}")
    directory = opened.get_artifact(record.artifact, stderr_progress())
    return kserve.values_of(directory, place, image, target=target, canary=canary, service_account=account)


@serving_app.command("render")
def render(
    model: ModelArgument,
    channel: ChannelArgument,
    image: ImageOption,
    target: TargetOption = None,
    canary: CanaryOption = None,
    account: AccountOption = "",
    namespace: Annotated[str, typer.Option("--namespace", metavar="NAME", help="Where it is served.")] = "default",
    uri: UriOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the KServe objects that serve what a channel names: kubectl apply -f -, or a base for overlays."""
    objects = kserve.manifests(_values(model, channel, image, target, canary, account, uri, store), namespace)
    if as_json:
        print_json(objects)
    else:
        print_text(yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True, width=1000))


@serving_app.command("values")
def values(
    model: ModelArgument,
    channel: ChannelArgument,
    image: ImageOption,
    target: TargetOption = None,
    canary: CanaryOption = None,
    account: AccountOption = "",
    uri: UriOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the values of charts/serving for what a channel names: helm upgrade --install … --values -."""
    found = _values(model, channel, image, target, canary, account, uri, store).model_dump(mode="json")
    if as_json:
        print_json(found)
    else:
        print_text(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=1000))


@serving_app.command("check")
def check(
    model: ModelArgument,
    channel: ChannelArgument,
    namespace: Annotated[str, typer.Option("--namespace", metavar="NAME", help="Where it is served.")] = "default",
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The InferenceService.  [default: by the model]")
    ] = None,
    target: TargetOption = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="URL", help="Where it answers.  [default: what its status says]")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="NAME", help="The Host header, where the address is a gateway.")
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", min=0, help="How long to wait for it.")] = 15,
    texts: Annotated[int, typer.Option("--texts", min=1, help="Evaluation texts to ask, about.")] = 256,
    max_p95_ms: Annotated[
        float | None,
        typer.Option(
            "--max-p95-ms", help="Of one text's time, above 0.  [default: what the gate allowed in the smoke test]"
        ),
    ] = None,
    rollback: Annotated[bool, typer.Option(help="Whether a rollout that is not healthy is taken back.")] = True,
    by: ByOption = None,
    uri: UriOption = None,
    store: StoreOption = None,
    deployment: DeploymentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until a cluster serves what a channel names, ask it the evaluation's texts, and roll back where it fails.

    Exit code 0: it serves the bundle, and says what the evaluation says. 3: it does not; the channel was taken back
    and pinned, and the deployment's Git repository follows. 5: the bundle has not arrived there, or the cluster is
    away; nothing was taken back.
    """
    if max_p95_ms is not None and not max_p95_ms > 0:
        what = f"no text is answered within {max_p95_ms:g} ms"
        fix = "allow more than 0 ms, or leave it out for what the gate allowed"
        raise UsageError(what, where="--max-p95-ms", fix=fix)
    opened, deployed = store_and_deployment(store, deployment)
    asked = Asked(
        model=model,
        channel=channel,
        namespace=namespace,
        name=name,
        target=target,
        uri=uri,
        address=address,
        host=host,
        seconds=60 * minutes,
        texts=texts,
        max_p95_ms=max_p95_ms,
    )
    found = rollout_check.check(opened, deployed, asked, person(by) if rollback else None, stderr_progress())
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_text(found.words)
    if not found.healthy:
        raise typer.Exit(NOT_HEALTHY)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(serving_app, name="serving")
