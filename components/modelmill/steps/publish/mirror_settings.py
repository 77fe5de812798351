"""Where registrations are told besides: MLflow's model registry, the Hugging Face Hub. Light, and without a secret."""

from __future__ import annotations

from pydantic import Field, field_validator

from modelmill.core.contract import Closed

MIRROR_VARIABLES = "MODELMILL_MIRROR_"
"""What the variables with the mirrors' credentials begin with."""
_ADDRESS = r"^https?://[^@\s]+$"
_NAMED = "it cannot be a name here; only {model} is filled in"


def _filled(template: str, model: str) -> str:
    try:
        return template.format(model=model)
    except (KeyError, IndexError, ValueError):
        raise ValueError(_NAMED) from None


class MlflowMirror(Closed):
    """MLflow's model registry: a version for each bundle, an alias for each channel.

    Credentials come from the environment: MODELMILL_MIRROR_MLFLOW_USERNAME and MODELMILL_MIRROR_MLFLOW_PASSWORD, or
    MODELMILL_MIRROR_MLFLOW_TOKEN, where the server asks for them.
    """

    address: str = Field(
        pattern=_ADDRESS, description="the tracking server, https://mlflow.example; without credentials"
    )
    name: str = Field("{model}", description="the registered model")

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not _filled(value, "m").strip():
            raise ValueError(_NAMED)
        return value

    def registered(self, model: str) -> str:
        """The registered model's name."""
        return _filled(self.name, model)


class HubMirror(Closed):
    """A model repository of the Hugging Face Hub: a commit and a tag for each bundle, a branch for each channel.

    The credential comes from the environment: MODELMILL_MIRROR_HUB_TOKEN, which may write there. HF_TOKEN, which every
    step is given, is not read.
    """

    repository: str = Field(
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9{][\w.{}-]*$",
        description="ORG/NAME, which is there; {model} is filled in",
    )
    address: str = Field("https://huggingface.co", pattern=_ADDRESS, description="the Hub, or one's own")
    main: str | None = Field(
        "production",
        description="the channel that the branch main follows; every other has a branch of its name. null: none does",
    )

    @field_validator("repository")
    @classmethod
    def _is_repository(cls, value: str) -> str:
        _filled(value, "m")
        return value

    def named(self, model: str) -> str:
        """The repository's name."""
        return _filled(self.repository, model)

    def branch(self, channel: str) -> str:
        """The branch that follows a channel."""
        return "main" if channel == self.main else channel


class Mirrors(Closed):
    """Where registrations are told besides the registry; it alone decides what is served."""

    mlflow: MlflowMirror | None = Field(None, description="MLflow's model registry")
    hub: HubMirror | None = Field(None, description="a model repository of the Hugging Face Hub")
