"""Sigstore's certificate authority and log on loopback, with keys of their own: what signs is the real library.

Fulcio gives whoever brings a token a certificate of ten minutes with the identity that the token names; its certificate
log and Rekor are this process's keys. The token is not checked, as the library does not either: what a test shows is
what is made of the certificate. Sources: Fulcio's and Rekor's REST APIs (v2, v1), RFC 6962, sigstore/protobuf-specs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

DER, SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
ISSUER = "https://tokens.example"
_OF_ISSUER = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_OF_ISSUER_TOO = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
"""Fulcio writes both: the text itself, as it began, and the same in DER."""
_OF_SCTS = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


@dataclass
class Sigstore:
    """Running services.

    Attributes:
        address: Where they listen.
        trust_config: What a client trusts, and where it asks.
        refusals: HTTP statuses that the next requests are answered with.
    """

    address: str
    trust_config: Path
    authority: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    ct_log: ec.EllipticCurvePrivateKey
    log: ec.EllipticCurvePrivateKey
    refusals: list[int] = field(default_factory=list)

    def certified(self, request: x509.CertificateSigningRequest, claims: dict[str, Any]) -> x509.Certificate:
        """A certificate for who a token says, with the certificate log's word for it."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(minutes=10))
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(claims["email"])]), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(_by(self.authority), critical=False)
            .add_extension(x509.UnrecognizedExtension(_OF_ISSUER, claims["iss"].encode()), critical=False)
            .add_extension(x509.UnrecognizedExtension(_OF_ISSUER_TOO, _utf8(claims["iss"])), critical=False)
        )
        promised = builder.sign(self.authority, hashes.SHA256())
        scts = _octets(self._sct(promised.tbs_certificate_bytes))
        final = builder.add_extension(x509.UnrecognizedExtension(_OF_SCTS, scts), critical=False)
        return final.sign(self.authority, hashes.SHA256())

    def _sct(self, tbs: bytes) -> bytes:
        """The list of signed certificate timestamps with one: RFC 6962, sections 3.2 and 3.3."""
        milliseconds = int(time.time() * 1000)
        issuer = hashlib.sha256(self.authority.public_key().public_bytes(DER, SPKI)).digest()
        entry = issuer + len(tbs).to_bytes(3, "big") + tbs
        signed = struct.pack("!BBQH", 0, 0, milliseconds, 1) + entry + b"\0\0"
        signature = self.ct_log.sign(signed, ec.ECDSA(hashes.SHA256()))
        sct = b"\0" + _key_id(self.ct_log) + struct.pack("!QH", milliseconds, 0)
        sct += b"\4\3" + struct.pack("!H", len(signature)) + signature
        listed = struct.pack("!H", len(sct)) + sct
        return struct.pack("!H", len(listed)) + listed

    def logged(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """An entry of a log in which it is the only one, with its promise and proof."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        signatures = [
            {"signature": one["sig"], "verifier": verifier}
            for one, verifier in zip(envelope["signatures"], content["verifiers"], strict=True)
        ]
        spec = {
            "envelopeHash": _sha256(content["envelope"].encode()),
            "payloadHash": _sha256(base64.b64decode(envelope["payload"])),
            "signatures": signatures,
        }
        body = _canonical({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        root = hashlib.sha256(b"\0" + body).digest()
        promise = {
            "body": base64.b64encode(body).decode(),
            "integratedTime": int(time.time()),
            "logID": _key_id(self.log).hex(),
            "logIndex": 0,
        }
        proof = {"logIndex": 0, "rootHash": root.hex(), "treeSize": 1, "hashes": [], "checkpoint": self._note(root)}
        signed = self.log.sign(_canonical(promise), ec.ECDSA(hashes.SHA256()))
        verification = {"signedEntryTimestamp": base64.b64encode(signed).decode(), "inclusionProof": proof}
        return {root.hex(): {**promise, "verification": verification}}

    def _note(self, root: bytes) -> str:
        text = f"rekor.example - 1\n1\n{base64.b64encode(root).decode()}\n"
        signature = _key_id(self.log)[:4] + self.log.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
        return f"{text}\n\u2014 rekor.example {base64.b64encode(signature).decode()}\n"


def token(email: str, issuer: str = ISSUER, seconds: int = 600) -> str:
    """An OpenID Connect token; its own signature is nobody's."""
    now = int(time.time())
    claims = {"iss": issuer, "sub": email, "email": email, "aud": "sigstore", "iat": now, "exp": now + seconds}
    return ".".join([_url64(b'{"alg":"RS256","typ":"JWT"}'), _url64(json.dumps(claims).encode()), _url64(b"none")])


@contextmanager
def sigstore_services(directory: Path) -> Iterator[Sigstore]:
    """Run them; the trust configuration lies in ``directory``."""
    authority, ct_log, log = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    certificate = _authority(authority)
    holder: list[Sigstore] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            services = holder[0]
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if services.refusals:
                self._send(services.refusals.pop(0), {"message": "not now"})
            elif self.path.endswith("/signingCert"):
                claims = json.loads(_of_url64(self.headers["Authorization"].split(".")[1]))
                pem = base64.b64decode(body["certificateSigningRequest"])
                made = services.certified(x509.load_pem_x509_csr(pem), claims)
                chain = [one.public_bytes(serialization.Encoding.PEM).decode() for one in (made, certificate)]
                self._send(200, {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}})
            else:
                self._send(201, services.logged(body))

        def _send(self, status: int, document: Any) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        path = directory / "trust-config.json"
        services = Sigstore(address, path, authority, certificate, ct_log, log)
        holder.append(services)
        path.write_text(json.dumps(_trust(services)), "utf-8")
        yield services
        server.shutdown()


def _trust(services: Sigstore) -> dict[str, Any]:
    period = {"start": "2020-01-01T00:00:00Z"}
    service = {"url": services.address, "majorApiVersion": 1, "operator": "here", "validFor": period}

    def key(of: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
        raw = base64.b64encode(of.public_key().public_bytes(DER, SPKI)).decode()
        public = {"rawBytes": raw, "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": period}
        identified = {"keyId": base64.b64encode(_key_id(of)).decode()}
        return {"baseUrl": services.address, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": identified}

    certificate = {"rawBytes": base64.b64encode(services.certificate.public_bytes(DER)).decode()}
    chain = {"certificates": [certificate]}
    root = {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [key(services.log)],
        "certificateAuthorities": [
            {
                "subject": {"organization": "here", "commonName": "here"},
                "uri": services.address,
                "certChain": chain,
                "validFor": period,
            }
        ],
        "ctlogs": [key(services.ct_log)],
    }
    signing = {
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": [service],
        "rekorTlogUrls": [service],
        "rekorTlogConfig": {"selector": "ANY"},
        "tsaConfig": {"selector": "ANY"},
    }
    return {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": root,
        "signingConfig": signing,
    }


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "here")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
        **dict.fromkeys(others, False),
    )


def _by(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(key.public_key().public_bytes(DER, SPKI)).digest()


def _sha256(content: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(content).hexdigest()}


def _canonical(document: dict[str, Any]) -> bytes:
    """RFC 8785 of what has ASCII keys and whole numbers alone."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _octets(content: bytes) -> bytes:
    return b"\4" + _length(content) + content


def _utf8(text: str) -> bytes:
    return b"\x0c" + _length(text.encode()) + text.encode()


def _length(content: bytes) -> bytes:
    size = len(content)
    return bytes([size]) if size < 128 else b"\x81" + bytes([size]) if size < 256 else b"\x82" + size.to_bytes(2, "big")


def _url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _of_url64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
