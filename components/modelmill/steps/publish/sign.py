"""Signing a bundle, and whether a bundle that was found is one that publish signed."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from modelmill.core import signature
from modelmill.core.bundle import BUNDLE_DOCUMENT, SIGNATURE, BundleDocument
from modelmill.core.errors import DeploymentError, InputError
from modelmill.core.keys import PrivateKey, signing_key
from modelmill.core.manifest import canonical, sha256_of
from modelmill.core.signer import KEY_VARIABLE, TOKEN_VARIABLE, Who
from modelmill.steps.publish.contract import Settings


def signing_key_of(settings: Settings) -> PrivateKey | None:
    """The key that the settings say signs; None where nothing is signed, or without a key.

    Raises:
        InputError: The environment names no key, or another one.
    """
    if settings.keyless is not None:
        return None
    key = signing_key() if settings.signer else None
    if settings.signer and (key is None or key.public.fingerprint != settings.signer):
        found = f"{KEY_VARIABLE} names {key.public.fingerprint}" if key else f"{KEY_VARIABLE} is not set here"
        what = f"the bundle is to be signed by {settings.signer}, and {found}"
        raise InputError(what, where="publish.signer", fix="give publish that key, and no other step")
    return key


def write(directory: Path, document: BundleDocument, signer: PrivateKey | Who) -> None:
    """Sign every file of a bundle, ``bundle.json`` last written.

    Raises:
        DeploymentError: Who signs without a key cannot: for want of the package sigstore, or of a token.
        SigningError: The service that signs without a key is away or refuses.
    """
    files = {name: entry.sha256 for name, entry in {**document.files, **document.evidence}.items()}
    files[BUNDLE_DOCUMENT] = sha256_of(directory / BUNDLE_DOCUMENT)
    name = f"{document.model}@{document.digest}"
    if isinstance(signer, Who):
        content = _without_key(canonical(signature.statement(name, files)), signer)
    else:
        content = signature.sign(name, files, signer)
    (directory / SIGNATURE).write_bytes(content)


def _without_key(statement: bytes, who: Who) -> bytes:
    try:
        # The package sigstore is in no image: only who signs without a key has added it.
        keyless = importlib.import_module("modelmill.core.keyless")
    except ImportError:
        what = f"{who.words} is to sign, and the package sigstore is not installed where publish runs"
        fix = "give steps.publish.image an image made FROM the cpu image with: pip install sigstore"
        raise DeploymentError(what, where="keyless", fix=fix) from None
    made: bytes = keyless.sign(statement, who, os.environ.get(TOKEN_VARIABLE) or None)
    return made


def envelope_of(statement: dict[str, object], key: PrivateKey) -> str:
    """An in-toto statement in a signed DSSE envelope, on one line."""
    return canonical(signature.envelope(canonical(statement), signature.IN_TOTO, key)).decode() + "\n"


def check(directory: Path, settings: Settings) -> None:
    """Check all of a bundle that lies under publish's step key, before it is let in.

    Whoever may store steps' outputs may store one under publish's key; only publish has the signing key.

    Raises:
        InputError: The bundle is damaged, or is not signed by this publish's key.
    """
    key = signing_key_of(settings)
    try:
        signature.verify(directory, key.public if key else None, who=settings.keyless.who if settings.keyless else None)
    except InputError as error:
        what = f"the output under publish's step key is not let in: {error.what}"
        fix = (
            "nothing was promoted; find out who else may write the store, remove the record of publish's step key "
            "(keys/) from it, and run again"
        )
        raise InputError(what, where=error.where, fix=fix) from None
