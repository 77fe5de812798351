"""Signing without a key: the real library, OpenSSF's real program, and Sigstore's services on loopback."""

from __future__ import annotations

import base64
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lane_artifacts import judge_lane, promoted_in, publish_lanes, publish_settings
from modelmill.core import registry
from modelmill.core.bundle import read_bundle
from modelmill.core.errors import DeploymentError, InputError, SigningError
from modelmill.core.local_store import LocalStore
from modelmill.core.manifest import canonical
from modelmill.core.progress import SilentProgress
from modelmill.core.signature import verify
from modelmill.core.signer import KEY_VARIABLE, TOKEN_VARIABLE, Who
from modelmill.steps.publish import sign
from modelmill.steps.publish.contract import Settings
from modelmill.steps.publish.resolve import resolve
from modelmill.steps.publish.sign_settings import Keyless
from signing_keys import make_keys
from sigstore_services import ISSUER, Sigstore, sigstore_services, token

ADA, BOB = "ada@example.org", "bob@example.org"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sigstore]:
    with sigstore_services(tmp_path_factory.mktemp("sigstore")) as found:
        yield found


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Path]:
    return judge_lane(tmp_path_factory.mktemp("lane") / "int8", tiny_bert)


def published(at: Path, lane: dict[str, Path], services: Sigstore, *, by: str = ADA, named: str = ADA) -> Path:
    """A bundle that publish signed with a token of ``by``, where the deployment names another perhaps."""
    keyless = Keyless(identity=named, issuer=ISSUER, trust_config=str(services.trust_config))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(TOKEN_VARIABLE, token(by))
        return publish_lanes(at, {"cpu-int8": lane}, keyless=keyless)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, lane: dict[str, Path], services: Sigstore) -> Path:
    """A bundle that ada signed. Read-only."""
    return published(tmp_path_factory.mktemp("signed") / "bundle", lane, services)


def who(services: Sigstore, identity: str = ADA, issuer: str = ISSUER) -> Who:
    return Who(identity, issuer, str(services.trust_config))


def test_a_bundle_is_signed_by_whom_the_deployment_names_and_checked_without_a_service(
    signed: Path, services: Sigstore
) -> None:
    services.refusals[:] = [500] * 9
    check = verify(signed, who=who(services))
    assert (check.signature, check.signer) == ("checked", f"{ADA} ({ISSUER})")
    assert len(services.refusals) == 9, "checking asked a service"
    services.refusals.clear()
    said = verify(signed)
    assert (said.signature, said.signer) == ("not checked", "keyless")


@pytest.mark.parametrize(
    ("identity", "issuer", "words"),
    [(BOB, ISSUER, "SANs do not match"), (ADA, "https://other.example", "OIDCIssuer")],
)
def test_another_identity_or_issuer_is_refused(
    signed: Path, services: Sigstore, identity: str, issuer: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        verify(signed, who=who(services, identity, issuer))
    assert f"it is not signed by {identity} ({issuer})" in caught.value.what
    assert words in caught.value.what
    assert caught.value.exit_code == 2


def test_a_signature_of_another_sigstore_is_refused(signed: Path, tmp_path: Path) -> None:
    with sigstore_services(tmp_path) as others, pytest.raises(InputError, match="is not signed by"):
        verify(signed, who=who(others))
    with pytest.raises(InputError, match="is not signed by"):
        verify(signed, who=Who(ADA, ISSUER))


def test_a_changed_file_and_a_changed_signature_are_refused(signed: Path, services: Sigstore, tmp_path: Path) -> None:
    copy = shutil.copytree(signed, tmp_path / "bundle")
    path = copy / "model.sig"
    whole = json.loads(path.read_bytes())
    none = base64.b64encode(bytes(32)).decode()
    for at, value in (
        (("dsseEnvelope", "signatures", 0, "sig"), none),
        (("verificationMaterial", "tlogEntries", 0, "inclusionProof", "rootHash"), none),
        (("verificationMaterial", "tlogEntries", 0, "integratedTime"), "1700000000"),
    ):
        document = json.loads(path.read_bytes())
        functools.reduce(lambda found, name: found[name], at[:-1], document)[at[-1]] = value
        path.write_bytes(canonical(document))
        with pytest.raises(InputError, match=r"model\.sig is refused"):
            verify(copy, who=who(services))
        path.write_bytes(canonical(whole))
    path.write_bytes((signed / "model.sig").read_bytes())
    verify(copy, who=who(services))
    (copy / "config.json").write_bytes(b"{}")
    with pytest.raises(InputError, match=r"config\.json was changed"):
        verify(copy, who=who(services))


def test_the_token_of_somebody_else_signs_nothing(tmp_path: Path, lane: dict[str, Path], services: Sigstore) -> None:
    with pytest.raises(DeploymentError) as caught:
        published(tmp_path / "bundle", lane, services, by=BOB, named=ADA)
    assert "not signed by whom the deployment names" in caught.value.what
    assert not (tmp_path / "bundle" / "model.sig").exists()


def test_what_keeps_it_from_signing_is_said_with_what_to_do(
    tmp_path: Path, lane: dict[str, Path], services: Sigstore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyless = Keyless(identity=ADA, issuer=ISSUER, trust_config=str(services.trust_config))
    cases: list[tuple[str, list[int], type[Exception], str]] = [
        ("", [], DeploymentError, "there is no token"),
        ("no.token.this", [], DeploymentError, "the token to sign with is none"),
        (token(ADA, seconds=-60), [], DeploymentError, "the token to sign with is none"),
        (token(ADA), [503], SigningError, "Sigstore did not sign"),
    ]
    for number, (value, refusals, kind, words) in enumerate(cases):
        monkeypatch.setenv(TOKEN_VARIABLE, value)
        services.refusals[:] = refusals
        with pytest.raises(kind) as caught:
            publish_lanes(tmp_path / str(number), {"cpu-int8": lane}, keyless=keyless)
        assert words in str(caught.value)
        assert "fix:" in str(caught.value)
        assert value == "" or value not in str(caught.value)
    services.refusals.clear()
    missing = keyless.model_copy(update={"trust_config": str(tmp_path / "nowhere.json")})
    with pytest.raises(DeploymentError, match="the trust configuration cannot be read"):
        publish_lanes(tmp_path / "missing", {"cpu-int8": lane}, keyless=missing)


def test_openssfs_own_program_accepts_it_and_refuses_another_identity(signed: Path, services: Sigstore) -> None:
    for identity, code in ((ADA, 0), (BOB, 1)):
        words = ["verify", "sigstore", signed, "--signature", signed / "model.sig", "--identity", identity]
        words += ["--identity_provider", ISSUER, "--trust_config", services.trust_config]
        done = subprocess.run(
            [sys.executable, "-m", "model_signing", *words], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, done.stderr + done.stdout


def test_what_is_promoted_is_registered_with_who_signed_and_a_planted_bundle_is_not_let_in(
    signed: Path, services: Sigstore, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "store")
    keyless = Keyless(identity=ADA, issuer=ISSUER, trust_config=str(services.trust_config))
    digest = promoted_in(store, signed, keyless=keyless, signer=keyless.who.words)
    record = registry.find_bundle(store, "banking", digest)
    assert record is not None
    assert record.signer == f"{ADA} ({ISSUER})"
    of_bob = keyless.model_copy(update={"identity": BOB})
    with pytest.raises(InputError, match="the output under publish's step key is not let in"):
        promoted_in(store, signed, keyless=of_bob, signer=of_bob.who.words)


def test_a_key_beside_a_signer_without_one_is_refused(
    services: Sigstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, str(make_keys(tmp_path).private))
    keyless = Keyless(identity=ADA, issuer=ISSUER, trust_config=str(services.trust_config))
    with pytest.raises(InputError, match="signs without a key, and there is a key"):
        resolve(publish_settings(keyless=keyless), SilentProgress())
    monkeypatch.delenv(KEY_VARIABLE)
    resolved = resolve(publish_settings(keyless=keyless), SilentProgress())
    assert isinstance(resolved, Settings)
    assert resolved.signer == f"{ADA} ({ISSUER})"


def test_where_sigstore_is_not_installed_that_is_said(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "modelmill.core.keyless", raising=False)
    monkeypatch.setitem(sys.modules, "sigstore", None)
    with pytest.raises(InputError, match="needs the package sigstore"):
        verify(signed, who=Who(ADA, ISSUER))
    with pytest.raises(DeploymentError, match="the package sigstore is not installed where publish runs"):
        sign.write(signed, read_bundle(signed), Who(ADA, ISSUER))


def modelmill(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelmill.cli.main", "verify", *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_verify_asks_for_identity_and_issuer_together_and_says_who_signed(signed: Path, services: Sigstore) -> None:
    trusted = ("--trust-config", services.trust_config)
    done = modelmill(signed, "--identity", ADA, "--issuer", ISSUER, *trusted)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == f"banking: whole, signed by {ADA} ({ISSUER})"
    assert "give --identity and --issuer to check by whom" in modelmill(signed).stdout
    done = modelmill(signed, "--identity", BOB, "--issuer", ISSUER, *trusted)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert f"not signed by {BOB}" in done.stderr
    done = modelmill(signed, "--identity", ADA)
    assert (done.returncode, "--identity and --issuer together" in done.stderr) == (2, True)
