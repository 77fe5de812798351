"""The contract of publish: the passed lanes become a bundle, and the channel moves to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from modelmill.core.contract import JSON, Kind, PortType, StepContract, Unkeyed, Zone, port
from modelmill.core.signer import KEY_VARIABLE, TOKEN_VARIABLE
from modelmill.step_settings import StepSettings
from modelmill.steps.publish.gitops_settings import GIT_VARIABLES, GitOps
from modelmill.steps.publish.mirror_settings import MIRROR_VARIABLES, Mirrors
from modelmill.steps.publish.sign_settings import Keyless

RELEASE_VARIABLES = (GIT_VARIABLES, KEY_VARIABLE, TOKEN_VARIABLE, MIRROR_VARIABLES)
"""What the names of the release's keys begin with in the environment, which publish alone is given."""


@dataclass(frozen=True)
class Inputs:
    """All lanes, by target name."""

    models: Mapping[str, Path] = port(PortType.MODEL, "the candidates", many=True)
    choices: Mapping[str, Path] = port(PortType.CHOICE, "how each was quantized", many=True)
    verdicts: Mapping[str, Path] = port(PortType.VERDICT, "what the gate said of each", many=True)


@dataclass(frozen=True)
class Outputs:
    """What is shipped."""

    bundle: Path = port(PortType.BUNDLE, "models of the passed lanes, tokenizer, card, report, signature")


class Settings(StepSettings):
    """What to publish as."""

    model: str = Field(description="the model's name in the registry")
    channel: str = Field(description="the channel that moves to the bundle")
    recipe: dict[str, JSON] = Field(
        default_factory=dict, description="the recipe as it was run, for the card and the report; empty: not told"
    )
    texts: bool = Field(False, description="whether texts of the data may stand in the bundle's report")
    unavailable: dict[str, str] = Field(
        default_factory=dict, description="target → what failed outside, so that its lane was not judged"
    )
    signer: str | None = Field(
        None,
        description="set by resolve: who signs the bundle, a key by its fingerprint or an identity; none: nobody",
    )
    keyless: Annotated[Keyless | None, Unkeyed()] = Field(
        None, description="who signs without a key, by Sigstore; left out: a key does, or nobody"
    )
    run: Annotated[str | None, Unkeyed()] = Field(None, description="the run, for the channel's history")
    git: Annotated[GitOps | None, Unkeyed()] = Field(
        None, description="the Git repository of overlays that the promotion is committed to; left out: none"
    )
    mirrors: Annotated[Mirrors | None, Unkeyed()] = Field(
        None, description="where the registration is told besides: MLflow, the Hugging Face Hub; left out: nowhere"
    )

    def told(self, section: str, name: str) -> str:
        """A text of the recipe, or nothing where it has none."""
        found = self.recipe.get(section)
        value = found.get(name) if isinstance(found, dict) else None
        return value if isinstance(value, str) else ""


STEP = StepContract(
    name="publish",
    version=5,
    summary="Assemble and sign the bundle of the passed lanes and move the channel to its digest.",
    inputs=Inputs,
    outputs=Outputs,
    settings=Settings,
    function="modelmill.steps.publish.run:run",
    kind=Kind.MEASURED,
    resolve="modelmill.steps.publish.resolve:resolve",
    light=True,
    zone=Zone.RELEASE,
    effect="modelmill.steps.publish.promote:promote",
)
PARTS = (STEP,)
