"""Who signs bundles without a key: an identity that Sigstore certifies. Light, and without a secret."""

from __future__ import annotations

from pydantic import Field

from modelmill.core.contract import Closed
from modelmill.core.signer import Who


class Keyless(Closed):
    """Signing without a key, by Sigstore: publish needs the package sigstore, and its services at hand.

    The token comes from the environment, MODELMILL_SIGNING_TOKEN, or from the platform: GitHub Actions, GitLab, Google
    Cloud, Buildkite. Where Sigstore's public services cannot be reached, trust_config names those of one's own.
    """

    identity: str = Field(
        min_length=1,
        description="who signs, as the certificate says: a mail address, the URI of a workflow or service account",
    )
    issuer: str = Field(
        pattern=r"^https?://[^@\s]+$", description="whose tokens say so: https://token.actions.githubusercontent.com"
    )
    trust_config: str | None = Field(
        None,
        description="a file of Sigstore's ClientTrustConfig where publish runs, for a Sigstore of one's own; left out: "
        "the public one",
    )

    @property
    def who(self) -> Who:
        """The signer."""
        return Who(self.identity, self.issuer, self.trust_config)
