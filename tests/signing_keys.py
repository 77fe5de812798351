"""Keys for the tests: made anew in each run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Keys:
    """A key pair as files.

    Attributes:
        private: PEM, PKCS 8.
        public: PEM.
    """

    private: Path
    public: Path


def make_keys(directory: Path, name: str = "key", curve: ec.EllipticCurve | None = None, password: str = "") -> Keys:
    """An EC key pair below ``directory``."""
    return _written(directory, name, ec.generate_private_key(curve or ec.SECP256R1()), password)


def make_other_keys(directory: Path) -> Keys:
    """A key pair of a kind that signs no bundles."""
    return _written(directory, "ed25519", ed25519.Ed25519PrivateKey.generate(), "")


def _written(
    directory: Path, name: str, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, password: str
) -> Keys:
    directory.mkdir(parents=True, exist_ok=True)
    keys = Keys(directory / f"{name}.pem", directory / f"{name}.public.pem")
    secret = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    keys.private.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, secret))
    keys.public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return keys
