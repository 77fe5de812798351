"""Pin who signs before the step key is made: a bundle signed by another key, or not signed, is another output."""

from __future__ import annotations

from modelmill.core.keys import signing_key
from modelmill.core.progress import Progress
from modelmill.steps.publish.contract import Settings


def resolve(settings: Settings, progress: Progress) -> Settings:
    """The settings with the fingerprint of the key that the environment names; as they are where it names none.

    Raises:
        InputError: The key cannot be read, or is no key that signs.
    """
    key = signing_key()
    return settings if key is None else settings.model_copy(update={"signer": key.public.fingerprint})
