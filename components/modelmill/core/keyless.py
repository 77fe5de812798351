"""Signing without a key, by Sigstore: a certificate of minutes for an identity, and an entry in a public log.

What is made is the same ``model.sig`` that `modelmill.core.signature` describes, with the certificate in the key's
place; OpenSSF's ``model_signing verify sigstore`` checks it, too. Importing this loads the package sigstore, which the
images do not have: only who signs, or checks, without a key needs it.

Signing asks Sigstore's Fulcio and Rekor, or those of a ``trust_config``; checking asks nobody: who is trusted is in the
package, or in that file, and the log's promise and proof are in the signature.
Source: docs.sigstore.dev, "Bundle format"; sigstore/protobuf-specs, ClientTrustConfig.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sigstore import dsse, oidc
from sigstore.errors import Error as SigstoreError
from sigstore.models import Bundle, ClientTrustConfig
from sigstore.sign import SigningContext
from sigstore.verify import Verifier
from sigstore.verify.policy import Identity

from modelmill.core.errors import DeploymentError, InputError, SigningError
from modelmill.core.manifest import canonical
from modelmill.core.signature import IN_TOTO
from modelmill.core.signer import TOKEN_VARIABLE, Who

_FIELD = "keyless.trust_config"


def sign(statement: bytes, who: Who, token: str | None) -> bytes:
    """The content of ``model.sig``: a statement signed by whom a token is of.

    Args:
        statement: The in-toto statement.
        who: Who is to sign; what was signed is held against it.
        token: An OpenID Connect token for the audience ``sigstore``; None asks the platform (GitHub Actions, GitLab,
            Google Cloud, Buildkite) for one. No browser is opened.

    Raises:
        DeploymentError: There is no token or trust configuration, or the certificate is of somebody else.
        SigningError: Sigstore's services are away or refuse.
    """
    trust = _trust(who, online=True)
    try:
        identity = oidc.IdentityToken(token or _ambient(who))
    except oidc.IdentityError as error:
        what = f"the token to sign with is none: {_first(error)}"
        fix = f"give {TOKEN_VARIABLE} a token that has not run out, for the audience sigstore"
        raise DeploymentError(what, where=TOKEN_VARIABLE, fix=fix) from None
    where = trust.signing_config.get_fulcio().url
    try:
        with SigningContext.from_trust_config(trust).signer(identity) as signer:
            made = signer.sign_dsse(dsse.Statement(statement))
    except (OSError, SigstoreError, oidc.ExpiredIdentity, ValueError, KeyError) as error:
        raise _away(error, where) from None
    except Exception as error:
        # The client of Fulcio and that of Rekor raise a class of their own each, whose only base this is.
        if type(error).__module__.startswith("sigstore."):
            raise _away(error, where) from None
        raise
    content = canonical(json.loads(made.to_json()))
    try:
        check(content, who)
    except InputError as error:
        what = f"what was signed is not signed by whom the deployment names: {error.what}"
        fix = "write keyless.identity and keyless.issuer as the certificate has them, or run as that identity"
        raise DeploymentError(what, where="keyless", fix=fix) from None
    return content


def check(content: bytes, who: Who) -> bytes:
    """The statement in a signature that ``who`` made, as its certificate and the log say.

    Raises:
        DeploymentError: The trust configuration cannot be read.
        InputError: The signature is no such one, was changed, or is of somebody else; the words say which.
    """
    verifier = Verifier(trusted_root=_trust(who, online=False).trusted_root)
    try:
        kind, payload = verifier.verify_dsse(
            Bundle.from_json(content), Identity(identity=who.identity, issuer=who.issuer)
        )
    except (SigstoreError, ValueError, KeyError, TypeError) as error:
        what = f"it is not signed by {who.words}: {_first(error)}"
        raise InputError(what, fix="check --identity and --issuer, and that the signer's Sigstore is trusted") from None
    if kind != IN_TOTO:
        what = f"it is no in-toto statement but {kind}"
        raise InputError(what, fix="give a signature that publish made")
    return payload


def _trust(who: Who, *, online: bool) -> ClientTrustConfig:
    if who.trust_config is None:
        try:
            return ClientTrustConfig.production(offline=not online)
        except (SigstoreError, OSError) as error:
            what = f"Sigstore's root of trust cannot be had: {_first(error)}"
            raise SigningError(what, where="Sigstore", fix=f"run again, or give {_FIELD}") from None
    try:
        return ClientTrustConfig.from_json(Path(who.trust_config).read_text("utf-8"))
    except (OSError, ValueError, SigstoreError) as error:
        what = f"the trust configuration cannot be read: {_first(error)}"
        fix = "give a file of Sigstore's ClientTrustConfig in JSON"
        raise DeploymentError(what, where=str(who.trust_config), fix=fix) from None


def _ambient(who: Who) -> str:
    try:
        token = oidc.detect_credential()
    except (SigstoreError, oidc.IdentityError, OSError) as error:
        what = f"the platform gives no token to sign with: {_first(error)}"
        raise DeploymentError(what, where=TOKEN_VARIABLE, fix=f"set {TOKEN_VARIABLE}, or allow it there") from None
    if token is None:
        what = f"{who.words} is to sign, and there is no token that says so"
        fix = f"set {TOKEN_VARIABLE} (in a cluster by release_secrets), or run where the platform gives one"
        raise DeploymentError(what, where=TOKEN_VARIABLE, fix=fix)
    return str(token)


def _away(error: Exception, where: str) -> SigningError:
    what = f"Sigstore did not sign: {type(error).__name__} {_first(error)}".strip()
    return SigningError(what, where=where, fix="run again; check keyless.trust_config and the token if it stays so")


def _first(error: Any) -> str:
    """The first line of an error, or of what it was raised from."""
    said = str(error).strip() or str(error.__cause__ or "").strip()
    return (said.splitlines() or [type(error).__name__])[0][:300]
