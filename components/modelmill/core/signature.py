"""A bundle's signature: ``model.sig``, in the form of OpenSSF model-signing, which checks it as well.

It is a Sigstore bundle (media type v0.3) with a DSSE envelope around an in-toto statement that names every file with
its sha256, ``bundle.json`` among them: so it covers the digest and the evidence, and lies outside of both. It covers
neither itself nor the ``manifest.json`` that a store adds.

The form is written here, for the package model-signing brings 16 more for signing without keys (sigstore), which the
light image would carry; the tests hold both against each other.
Sources: sigstore/model-transparency, docs/model_signing_format.md; secure-systems-lab/dsse, protocol.md, v1.0.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from modelmill.core import bundle as bundles
from modelmill.core.bundle import SIGNATURE, BundleCheck
from modelmill.core.errors import DeploymentError, InputError
from modelmill.core.manifest import MANIFEST, canonical, sha256_of
from modelmill.core.signer import Who

if TYPE_CHECKING:
    from modelmill.core.keys import PrivateKey, PublicKey

IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_OWN = (SIGNATURE, MANIFEST)
"""Not signed: one is the signature, the other comes and goes with the store."""
_LONGEST = 64 << 20


KEYLESS = "keyless"
"""What stands for the signer where a certificate says who it was, until that is checked."""


@dataclass(frozen=True)
class Signature:
    """A signature as it was read; nothing of it is checked yet.

    Attributes:
        signer: ``sha256:…``, the fingerprint that it names; anyone can write any. `KEYLESS` of one without a key.
        content: All of it.
        payload: The statement's bytes.
        value: The signature over the payload.
        resources: File → sha256, in hex.
    """

    signer: str
    content: bytes
    payload: bytes
    value: bytes
    resources: Mapping[str, str]


def envelope(payload: bytes, kind: str, key: PrivateKey) -> dict[str, object]:
    """A DSSE envelope with one signature."""
    signature = {"keyid": "", "sig": _base64(key.sign(authenticated(payload, kind)))}
    return {"payload": _base64(payload), "payloadType": kind, "signatures": [signature]}


def authenticated(payload: bytes, kind: str) -> bytes:
    """What a DSSE signature is over: PAE of its protocol."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def sign(name: str, files: Mapping[str, str], key: PrivateKey) -> bytes:
    """The content of ``model.sig``.

    Args:
        name: What is signed, for people.
        files: Path → sha256 in hex, of every file.
        key: Signs.
    """
    hint = key.public.fingerprint.removeprefix("sha256:")
    return canonical(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
            "dsseEnvelope": envelope(canonical(statement(name, files)), IN_TOTO, key),
        }
    )


def statement(name: str, files: Mapping[str, str]) -> dict[str, object]:
    """What a signature is over: the in-toto statement that names every file.

    Args:
        name: What is signed, for people.
        files: Path → sha256 in hex, of every file.
    """
    files = _ordered(files)
    resources = [{"name": path, "algorithm": "sha256", "digest": sha256} for path, sha256 in files.items()]
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(files)}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(_OWN),
            },
            "resources": resources,
        },
    }


def read_signature(path: Path) -> Signature:
    """The signature in a file, whole in itself.

    Raises:
        InputError: There is none, or it is no signature of files as OpenSSF model-signing writes it.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_LONGEST)
    except OSError as error:
        what = f"the signature cannot be read: {error.strerror}"
        raise InputError(what, where=str(path), fix="name the file that holds it") from None
    try:
        document = json.loads(content)
        dsse, material = document["dsseEnvelope"], document["verificationMaterial"]
        if document["mediaType"] != MEDIA_TYPE or dsse["payloadType"] != IN_TOTO or len(dsse["signatures"]) != 1:
            _refuse_form(path)
        payload, value = _bytes(dsse["payload"]), _bytes(dsse["signatures"][0]["sig"])
        statement = json.loads(payload)
        resources = _resources(statement)
        keyless = "certificate" in material and "publicKey" not in material
        signer = KEYLESS if keyless else "sha256:" + str(material["publicKey"]["hint"])
        (subject,) = statement["subject"]
        whole = statement["predicateType"] == PREDICATE and subject["digest"]["sha256"] == _root(resources)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        _refuse_form(path)
    if not whole or (path.name == SIGNATURE and content != canonical(document)):
        # What publish writes has one form: where a byte of it differs, it was touched.
        _refuse_form(path)
    return Signature(signer, content, payload, value, resources)


def verify(
    directory: Path, key: PublicKey | None = None, signature: Path | None = None, who: Who | None = None
) -> BundleCheck:
    """Check a bundle offline, and its signature.

    Args:
        directory: The bundle.
        key: The signer's; None says who claims to have signed, and checks nothing of it.
        signature: Where the signature lies, if not in the bundle.
        who: The signer's identity, of one without a key; in the key's place.

    Raises:
        InputError: Something is wrong, and the first thing is named: what `modelmill.core.bundle.verify` names; then a
            signature that is missing where a key or a file was given, is of another key, or of other files.
    """
    check = bundles.verify(directory)
    path = signature or directory / SIGNATURE
    if signature is None and not path.exists():
        if key is not None or who is not None:
            asked = key.fingerprint if key else who.words if who else ""
            what = f"the bundle is unsigned: it has no {SIGNATURE}"
            fix = f"publish it with a signer, or name where its signature lies; {asked} was asked for"
            raise InputError(what, where=str(directory), fix=fix)
        return check
    found = read_signature(path)
    if key is not None:
        if not key.verifies(authenticated(found.payload, IN_TOTO), found.value):
            if found.signer == key.fingerprint:
                _refuse(f"{path.name} was changed: it is not what the key {key.fingerprint} signed", path)
            _refuse(f"{path.name} is of another signer, {found.signer}, and not of {key.fingerprint}", path)
        if found.signer != key.fingerprint:
            _refuse(f"{path.name} names another key, {found.signer}, than the one that signed", path)
    elif who is not None:
        _check_who(found, who, path)
    _check_resources(directory, path, found.resources)
    signer = who.words if who else found.signer
    return replace(check, signature="checked" if key or who else "not checked", signer=signer)


def _check_who(found: Signature, who: Who, path: Path) -> None:
    """Check that a signature is that of an identity, and over the statement that was read."""
    if found.signer != KEYLESS:
        _refuse(f"{path.name} is signed by the key {found.signer}, and not by {who.words}", path)
    try:
        # The package sigstore is loaded only by who checks such a signer.
        checked = importlib.import_module("modelmill.core.keyless").check(found.content, who)
    except ImportError:
        what = "checking a signer without a key needs the package sigstore, which is not installed here"
        raise InputError(what, where="--identity", fix="pip install sigstore") from None
    except DeploymentError:
        raise
    except InputError as error:
        _refuse(f"{path.name} is refused: {error.what}", path)
    if checked != found.payload:
        _refuse(f"{path.name} was changed: its statement is another", path)


def _check_resources(directory: Path, path: Path, resources: Mapping[str, str]) -> None:
    document = bundles.read_bundle(directory)
    files = {name: entry.sha256 for name, entry in {**document.files, **document.evidence}.items()}
    files[bundles.BUNDLE_DOCUMENT] = sha256_of(directory / bundles.BUNDLE_DOCUMENT)
    # Who signs a delivered directory with another program signs these, too.
    beside = {name: directory / name for name in _OWN if name in resources and (directory / name).is_file()}
    files |= {name: sha256_of(at) for name, at in beside.items()}
    for name in sorted({*files, *resources}):
        if name not in resources:
            _refuse(f"{path.name} does not cover {name}", path)
        if files.get(name) != resources[name]:
            _refuse(f"{path.name} is of another bundle: its {name} is another", path)


def _resources(statement: Mapping[str, Any]) -> dict[str, str]:
    serialization = statement["predicate"]["serialization"]
    found = {item["name"]: item["digest"] for item in statement["predicate"]["resources"]}
    known = serialization["method"] == "files" and serialization["hash_type"] == "sha256"
    if not known or not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise ValueError(serialization)
    return found


def _ordered(files: Mapping[str, str]) -> dict[str, str]:
    """In the order that model-signing gives them: by the parts of the path."""
    return dict(sorted(files.items(), key=lambda item: item[0].split("/")))


def _root(files: Mapping[str, str]) -> str:
    """sha256 over all files' sha256 in the order given: the statement's subject."""
    return hashlib.sha256(b"".join(bytes.fromhex(sha256) for sha256 in files.values())).hexdigest()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str) -> bytes:
    """Decoded base64, of which there is one form of the same bytes.

    Raises:
        ValueError: It is in another form.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError(text) from None
    if _base64(content) != text:
        raise ValueError(text)
    return content


def _refuse_form(path: Path) -> NoReturn:
    _refuse(f"{path.name} was changed, or is no signature of OpenSSF model-signing over files", path)


def _refuse(what: str, where: Path) -> NoReturn:
    raise InputError(what, where=str(where), fix="do not use this bundle: fetch it anew, or publish again") from None
