"""Pin who signs before the step key is made: a bundle signed by another key, or not signed, is another output."""

from __future__ import annotations

from modelmill.core.errors import InputError
from modelmill.core.keys import signing_key
from modelmill.core.progress import Progress
from modelmill.core.signer import KEY_VARIABLE
from modelmill.steps.publish.contract import Settings


def resolve(settings: Settings, progress: Progress) -> Settings:
    """The settings with who signs: the fingerprint of the key that the environment names, or who does without a key.

    Raises:
        InputError: The key cannot be read, or is no key that signs; or there is one, and the deployment says without.
    """
    key = signing_key()
    if settings.keyless is not None:
        if key is not None:
            what = f"the deployment says that {settings.keyless.who.words} signs without a key, and there is a key"
            raise InputError(
                what, where=KEY_VARIABLE, fix=f"unset {KEY_VARIABLE}, or take keyless out of the deployment"
            )
        return settings.model_copy(update={"signer": settings.keyless.who.words})
    return settings if key is None else settings.model_copy(update={"signer": key.public.fingerprint})
