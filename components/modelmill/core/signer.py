"""Who signs: the variables of the environment that tell, and an identity without a key.

By itself, for contracts name these where recipes and deployments are read, which loads nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass

KEY_VARIABLE = "MODELMILL_SIGNING_KEY"
"""The environment variable of the private key: its path, or the PEM itself, as a secret has it."""
PASSWORD_VARIABLE = f"{KEY_VARIABLE}_PASSWORD"
TOKEN_VARIABLE = "MODELMILL_SIGNING_TOKEN"
"""The environment variable of the token by which Sigstore knows who signs without a key."""


@dataclass(frozen=True)
class Who:
    """A signer without a key.

    Attributes:
        identity: As the certificate names it: a mail address, or a workflow's or service account's URI.
        issuer: Whose tokens say so: an OpenID Connect issuer.
        trust_config: A file of Sigstore's ClientTrustConfig, for a Sigstore of one's own; None: the public one.
    """

    identity: str
    issuer: str
    trust_config: str | None = None

    @property
    def words(self) -> str:
        """For people, records and step keys."""
        return f"{self.identity} ({self.issuer})"
