"""What every mirror of a registration does, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from modelmill.core import bundle as bundles
from modelmill.core import promotable
from modelmill.core.progress import Progress
from modelmill.core.registry_documents import BundleRecord
from modelmill.core.store import Store
from modelmill.steps.publish.mirror_settings import MIRROR_VARIABLES


@dataclass(frozen=True)
class Registered:
    """A registered bundle, whose files are fetched when a mirror wants them.

    Attributes:
        store: Where it lies.
        record: The registry's record.
        progress: Told while files are fetched.
    """

    store: Store
    record: BundleRecord
    progress: Progress

    @property
    def digest(self) -> str:
        """The bundle's."""
        return self.record.bundle

    @property
    def uri(self) -> str:
        """Where it lies in the store."""
        return self.store.artifact_uri(self.record.artifact)

    @cached_property
    def directory(self) -> Path:
        """Its files, verified.

        Raises:
            StoreError: They are gone, or the store is away.
        """
        return self.store.get_artifact(self.record.artifact, self.progress)

    @cached_property
    def document(self) -> bundles.BundleDocument:
        """``bundle.json``."""
        return bundles.read_bundle(self.directory)

    @cached_property
    def verdict(self) -> str:
        """Whether every lane of it passed; a person may have promoted one that did not."""
        return "overridden" if promotable.failing_lanes(self.directory, self.digest) else "pass"

    @property
    def files(self) -> list[str]:
        """The bundle's files: all that `modelmill verify` expects, and nothing that a store adds."""
        own = [name for name in (bundles.BUNDLE_DOCUMENT, bundles.SIGNATURE) if (self.directory / name).is_file()]
        return sorted([*self.document.files, *self.document.evidence, *own])


class Mirror(Protocol):
    """One place that registrations are told. Both methods change nothing the second time.

    They raise `DeploymentError` where settings or credentials are wrong, `MirrorError` where the other side is away.
    """

    def put(self, bundle: Registered) -> str | None:
        """Let the mirror have a bundle; what was done in words, None where it had it."""

    def point(self, channel: str, bundle: Registered) -> str | None:
        """Let the mirror's pointer for a channel lead to a bundle that it has; None where it did."""


@dataclass(frozen=True)
class MirrorCredentials:
    """What mirrors ask for, from the environment."""

    mlflow_username: str | None = None
    mlflow_password: str | None = field(default=None, repr=False)
    mlflow_token: str | None = field(default=None, repr=False)
    hub_token: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> MirrorCredentials:
        """The variables MODELMILL_MIRROR_…; one that is empty is as one that is not set."""

        def value(name: str) -> str | None:
            return environment.get(MIRROR_VARIABLES + name) or None

        return cls(
            mlflow_username=value("MLFLOW_USERNAME"),
            mlflow_password=value("MLFLOW_PASSWORD"),
            mlflow_token=value("MLFLOW_TOKEN"),
            hub_token=value("HUB_TOKEN"),
        )

    def redacted(self, text: str) -> str:
        """``text`` without any of the secrets: servers repeat what they are sent."""
        for secret in (self.mlflow_password, self.mlflow_token, self.hub_token):
            if secret:
                text = text.replace(secret, "***")
        return text
