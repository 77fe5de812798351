"""Keys that sign and keys that check: elliptic curve keys in PEM.

Importing this loads `cryptography`: only what signs, or checks a signer, does.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelmill.core.errors import InputError
from modelmill.core.signer import KEY_VARIABLE, PASSWORD_VARIABLE

_LONGEST = 1 << 16
_HASHES: Mapping[str, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
_CREATE = "make one: openssl ecparam -name prime256v1 -genkey -noout -out key.pem"


@dataclass(frozen=True)
class PublicKey:
    """What a signature is checked with."""

    _key: ec.EllipticCurvePublicKey

    @property
    def fingerprint(self) -> str:
        """``sha256:…`` over the key's PEM: what OpenSSF model-signing names a key by."""
        form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return "sha256:" + hashlib.sha256(self._key.public_bytes(*form)).hexdigest()

    def verifies(self, content: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over ``content``."""
        try:
            self._key.verify(signature, content, ec.ECDSA(_HASHES[self._key.curve.name]()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """What signs."""

    _key: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> PublicKey:
        """Its other half."""
        return PublicKey(self._key.public_key())

    def sign(self, content: bytes) -> bytes:
        """An ECDSA signature in DER; the same content has the same one (RFC 6979)."""
        return self._key.sign(content, ec.ECDSA(_HASHES[self._key.curve.name](), deterministic_signing=True))


def signing_key(environment: Mapping[str, str] = os.environ) -> PrivateKey | None:
    """The private key that the environment names, or None where it names none.

    Raises:
        InputError: There is no such file, or it holds no private key that can sign.
    """
    given = environment.get(KEY_VARIABLE)
    if given is None:
        return None
    if not given.strip():
        _refuse_private(f"{KEY_VARIABLE} is set and empty", f"unset it to publish without a signature, or {_CREATE}")
    content = given.encode() if "-----BEGIN" in given else _read(Path(given), KEY_VARIABLE)
    password = environment.get(PASSWORD_VARIABLE)
    try:
        key = serialization.load_pem_private_key(content, password.encode() if password else None)
    except TypeError:
        said = "has no password, and one is given" if password else "is encrypted, and no password is given"
        _refuse_private(f"the signing key {said}", f"set {PASSWORD_VARIABLE} where the key needs it, and only there")
    except (ValueError, UnsupportedAlgorithm):
        doubt = ", or its password is another" if password else ""
        _refuse_private(f"the signing key is no private key in PEM{doubt}", _CREATE)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _HASHES:
        _refuse_private("the signing key is of another kind than EC on the curve P-256, P-384 or P-521", _CREATE)
    return PrivateKey(key)


def public_key(path: Path) -> PublicKey:
    """The public key in a PEM file.

    Raises:
        InputError: There is no such file, or it holds no public key of a kind that signs bundles.
    """
    fix = "give the signer's public key: openssl ec -in key.pem -pubout -out public.pem"
    content = _read(path, "--key")
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        private = " but a private one, which whoever checks must not have" if b"PRIVATE KEY" in content else ""
        what = f"{path.name} holds no public key in PEM{private}"
        raise InputError(what, where=str(path), fix=fix) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        what = f"{path.name} is of another kind than EC on the curve P-256, P-384 or P-521"
        raise InputError(what, where=str(path), fix=fix)
    return PublicKey(key)


def _read(path: Path, where: str) -> bytes:
    """A key's file; never its content in a message."""
    try:
        with path.open("rb") as stream:
            return stream.read(_LONGEST)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "this is no path"
        what = f"the key's file cannot be read: {reason}"
        # What stands in the variable may be a damaged key: it is not repeated.
        at = where if where == KEY_VARIABLE else str(path)
        raise InputError(what, where=at, fix="name the PEM file of an EC key that this process may read") from None


def _refuse_private(what: str, fix: str) -> NoReturn:
    raise InputError(what, where=KEY_VARIABLE, fix=fix) from None
