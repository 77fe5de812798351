"""Commands on artifacts: verify; and where an artifact that a command names lies."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from modelmill.cli.options import JsonOption
from modelmill.cli.output import megabytes, print_json, print_text
from modelmill.cli.progress import stderr_progress
from modelmill.core import signature as signatures
from modelmill.core.bundle import BundleCheck
from modelmill.core.errors import UsageError
from modelmill.core.signature import KEYLESS
from modelmill.core.signer import Who
from modelmill.core.stores import open_store


def local_directory(location: str) -> Path:
    """The directory of an artifact that is named by a path, or by its URI in a store on S3 (then a verified copy)."""
    if location.startswith("s3://"):
        prefix, separator, digest = location.rstrip("/").rpartition("/artifacts/")
        if not separator:
            what = f"{location} is no artifact's URI"
            raise UsageError(what, where=location, fix="give s3://BUCKET/PREFIX/artifacts/DIGEST, as run prints it")
        return open_store(prefix).get_artifact(f"sha256:{digest}", stderr_progress())
    path = Path(location.removeprefix("file:"))
    if not path.is_dir():
        what = f"there is no directory {path}"
        raise UsageError(what, where=location, fix="give the directory, or its s3:// URI, that run prints")
    return path


def verify(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="The bundle's directory, or its URI in a store.")],
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="PUBLIC.pem", help="The signer's public key: the bundle must be signed by it."),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option("--signature", metavar="FILE", help="The signature to check.  [default: model.sig in the bundle]"),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option("--identity", metavar="WHO", help="Who must have signed it without a key; with --issuer."),
    ] = None,
    issuer: Annotated[
        str | None,
        typer.Option("--issuer", metavar="URL", help="Whose tokens say who that is: an OpenID Connect issuer."),
    ] = None,
    trust_config: Annotated[
        Path | None,
        typer.Option("--trust-config", metavar="FILE", help="Of a Sigstore of one's own.  [default: the public one]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a bundle offline: every file, the digest, that the evidence is about these models, and the signature."""
    directory = local_directory(bundle)
    # What it takes to load a library of ciphers is paid only by who checks a signer.
    signer = importlib.import_module("modelmill.core.keys").public_key(key) if key else None
    found = signatures.verify(directory, signer, signature, _who(key, identity, issuer, trust_config))
    if as_json:
        print_json({**vars(found), "lanes": dict(found.lanes)})
        return
    print_text(f"{found.model}: whole, {_signed(found)}")
    print_text(f"digest: {found.digest}")
    print_text(f"lanes:  {', '.join(f'{name} at {path}' for name, path in found.lanes.items())}")
    print_text(f"files:  {found.files} and {found.evidence} of evidence, {megabytes(found.size_bytes)}")


def _who(key: Path | None, identity: str | None, issuer: str | None, trust_config: Path | None) -> Who | None:
    if identity is None and issuer is None and trust_config is None:
        return None
    if key is not None or identity is None or issuer is None:
        what = "a signer without a key is named by --identity and --issuer together, and without --key"
        raise UsageError(
            what, where="--identity", fix="give both, as the signer's certificate has them; or --key alone"
        )
    return Who(identity, issuer, str(trust_config) if trust_config else None)


def _signed(check: BundleCheck) -> str:
    if check.signer is None:
        return "unsigned"
    if check.signature == "checked":
        return f"signed by {check.signer}"
    if check.signer == KEYLESS:
        return "signed without a key, it says: give --identity and --issuer to check by whom"
    return f"signed, it says, by {check.signer}: give --key PUBLIC.pem to check that"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(verify)
