"""The one error tree; an exception's class decides the exit code.

ModelmillError                      1   a bug
├── InputError                      2   the input is wrong; never retried
│   ├── RecipeError                     the recipe (or a --set) does not say something valid
│   ├── DeploymentError                 the deployment file is wrong, or forbids what was asked
│   ├── DataError                       a data set, a file of it or a row
│   ├── ModelError                      a model's files, its configuration or its weights
│   ├── HardwareError                   the machine is not the one the recipe declares
│   └── UsageError                      a command-line argument
└── OutsideError                    5   something outside failed after retries; safe to run again
    ├── StoreError                      the store is away, refuses or is full
    │   └── CorruptArtifactError        stored bytes differ from their manifest
    ├── SourceError                     a source (hub, bucket) is away or refuses
    ├── GitError                        the Git remote, or its pull requests' API, is away or refuses
    ├── MirrorError                     a mirror of the registry is away or refuses
    ├── SigningError                    the service that signs without a key is away or refuses
    ├── OrchestratorError               an orchestrator's server is away or refuses
    ├── LaneError                       a lane that the recipe requires is unavailable
    ├── ChampionError                   a channel moved on while a run judged against what it named
    └── StepKilledError                 a step's process was killed (memory, signal)
"""

from __future__ import annotations


class ModelmillError(Exception):
    """Base of all errors that modelmill raises on purpose.

    Args:
        what: What is wrong, in one sentence.
        where: The file, field or row it is about.
        fix: What the user can do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, where, fix)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class InputError(ModelmillError):
    """The input is wrong: recipe, data or model."""

    exit_code = 2


class RecipeError(InputError):
    """The recipe does not say something valid."""


class DeploymentError(InputError):
    """The deployment is wrong, or forbids what the recipe asks."""


class DataError(InputError):
    """A data set, a file of it or a row is wrong."""


class ModelError(InputError):
    """A model's files, configuration or weights are wrong."""


class HardwareError(InputError):
    """The machine is not of the hardware class that the recipe declares."""


class UsageError(InputError):
    """A command-line argument is wrong."""


class OutsideError(ModelmillError):
    """Something outside failed after retries; running again is safe."""

    exit_code = 5


class StoreError(OutsideError):
    """The store is away, refuses or is full."""


class CorruptArtifactError(StoreError):
    """Stored bytes differ from what their manifest says.

    Args:
        what: What is wrong.
        digest: The artifact's digest, ``sha256:…``.
        where: The file it is about.
    """

    def __init__(self, what: str, *, digest: str, where: str | None = None) -> None:
        super().__init__(what, where=where, fix="run again: what made it is made anew")
        self.digest = digest


class SourceError(OutsideError):
    """A source of models or data is away or refuses."""


class GitError(OutsideError):
    """The Git remote that promotions are committed to, or the API of its pull requests, is away or refuses."""


class MirrorError(OutsideError):
    """A mirror of the registry, such as MLflow's or the Hub, is away or refuses; the registry itself has moved."""


class SigningError(OutsideError):
    """The service that signs bundles without a key is away or refuses; nothing was promoted."""


class OrchestratorError(OutsideError):
    """An orchestrator's server is away or refuses."""


class LaneError(OutsideError):
    """A lane that the recipe requires is unavailable: something outside failed, so that nothing was judged."""


class ChampionError(OutsideError):
    """A channel has come to name another bundle than the one that a candidate was held against."""


class StepKilledError(OutsideError):
    """A step's process ended by a signal."""
