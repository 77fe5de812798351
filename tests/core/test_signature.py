"""A bundle's signature: what it covers, whom it names, and that OpenSSF model-signing agrees."""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from lane_artifacts import judge_lane, publish_lanes
from modelmill.core import signature
from modelmill.core.errors import InputError
from modelmill.core.keys import public_key, signing_key
from modelmill.core.manifest import build, canonical
from modelmill.core.signature import verify
from signing_keys import Keys, make_keys, make_other_keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, keys: Keys) -> Path:
    work = tmp_path_factory.mktemp("signed")
    lanes = {
        "cpu-int8": judge_lane(work / "int8", tiny_bert, "cpu-int8"),
        "cpu-float": judge_lane(work / "float", tiny_bert, "cpu-float", seed=1, external=True),
    }
    return publish_lanes(work / "bundle", lanes, key=keys)


@pytest.fixture
def copy(tmp_path: Path, signed: Path) -> Path:
    return shutil.copytree(signed, tmp_path / "bundle")


def model_signing(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """OpenSSF's own program."""
    command = [sys.executable, "-m", "model_signing", *(str(item) for item in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_signed_bundle_names_its_signer_and_is_checked_with_the_key(signed: Path, keys: Keys) -> None:
    key = public_key(keys.public)
    check = verify(signed, key)
    assert (check.signature, check.signer) == ("checked", key.fingerprint)
    assert verify(signed).signature == "not checked"


def test_a_signature_is_no_part_of_digest_and_evidence(signed: Path, tmp_path: Path) -> None:
    unsigned = shutil.copytree(signed, tmp_path / "bundle")
    (unsigned / "model.sig").unlink()
    assert verify(unsigned).digest == verify(signed).digest
    assert (verify(unsigned).signature, verify(unsigned).signer) == ("unsigned", None)


def test_the_same_bundle_has_the_same_signature(signed: Path, keys: Keys) -> None:
    key = signing_key({"MODELMILL_SIGNING_KEY": str(keys.private)})
    assert key is not None
    found = signature.read_signature(signed / "model.sig")
    assert (
        signature.sign(json.loads(found.payload)["subject"][0]["name"], found.resources, key)
        == (signed / "model.sig").read_bytes()
    )


def test_openssf_model_signing_accepts_what_publish_signs(copy: Path, keys: Keys) -> None:
    # A store's manifest comes and goes.
    (copy / "manifest.json").write_bytes(canonical(build(copy, "bundle").model_dump(mode="json")))
    arguments = ["verify", "key", copy, "--signature", copy / "model.sig", "--public_key", keys.public]
    done = model_signing(*arguments)
    assert done.returncode == 0, done.stderr
    assert verify(copy, public_key(keys.public)).signature == "checked"
    (copy / "config.json").write_text("{}", "utf-8")
    assert model_signing(*arguments).returncode != 0


def test_what_openssf_model_signing_signs_is_accepted(copy: Path, tmp_path: Path, keys: Keys) -> None:
    other = make_keys(tmp_path, "other", ec.SECP384R1())
    found = tmp_path / "other.sig"
    done = model_signing("sign", "key", copy, "--signature", found, "--private_key", other.private)
    assert done.returncode == 0, done.stderr
    key = public_key(other.public)
    assert verify(copy, key, found).signer == key.fingerprint
    with pytest.raises(InputError, match=r"other\.sig is of another signer"):
        verify(copy, public_key(keys.public), found)
    (copy / "model.sig").write_bytes((copy / "model.sig").read_bytes()[:-1] + b" ")
    with pytest.raises(InputError, match=r"other\.sig is of another bundle: its model\.sig is another"):
        verify(copy, key, found)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_openssf_model_signing_accepts_every_curve(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_bytes(b"a")
    keys = make_keys(tmp_path, curve=curve)
    key = signing_key({"MODELMILL_SIGNING_KEY": keys.private.read_text("ascii")})
    assert key is not None
    files = {name: entry.sha256 for name, entry in build(folder, "model").files.items()}
    (folder / "model.sig").write_bytes(signature.sign("m", files, key))
    done = model_signing("verify", "key", folder, "--signature", folder / "model.sig", "--public_key", keys.public)
    assert done.returncode == 0, done.stderr


def test_single_bytes_files_removed_and_files_added_are_all_found_and_named(copy: Path, keys: Keys) -> None:
    generator, key = random.Random(1), public_key(keys.public)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    for _ in range(200):
        path = generator.choice([*files, copy / "model.sig"])
        content = path.read_bytes()
        at = generator.randrange(len(content))
        kind = generator.choice(["change", "remove", "add", "remove file", "add file"])
        byte = bytes([content[at] ^ generator.randrange(1, 256)])
        named = path.name
        if kind == "remove file":
            path.unlink()
            named = "it has no model.sig" if named == "model.sig" else "missing|has no bundle"
        elif kind == "add file":
            added = path.with_name(f"{path.name}.{at}")
            added.write_bytes(byte)
            named = added.name
        else:
            parts = {"change": byte + content[at + 1 :], "remove": content[at + 1 :], "add": byte + content[at:]}
            path.write_bytes(content[:at] + parts[kind])
        with pytest.raises(InputError, match=named):
            verify(copy, key)
        if kind == "add file":
            added.unlink()
        path.write_bytes(content)
    verify(copy, key)


def test_another_signer_is_refused_also_where_it_gives_itself_for_the_right_one(
    copy: Path, tmp_path: Path, keys: Keys
) -> None:
    right = public_key(keys.public)
    intruder = signing_key({"MODELMILL_SIGNING_KEY": str(make_keys(tmp_path).private)})
    assert intruder is not None
    found = signature.read_signature(copy / "model.sig")
    (copy / "model.sig").write_bytes(signature.sign("m", found.resources, intruder))
    with pytest.raises(InputError, match=rf"is of another signer, {intruder.public.fingerprint}, and not of"):
        verify(copy, right)
    document = json.loads((copy / "model.sig").read_bytes())
    document["verificationMaterial"]["publicKey"]["hint"] = right.fingerprint.removeprefix("sha256:")
    (copy / "model.sig").write_bytes(canonical(document))
    with pytest.raises(InputError, match="is not what the key"):
        verify(copy, right)


def test_a_signature_of_another_bundle_is_refused(copy: Path, tmp_path: Path, tiny_bert: Path, keys: Keys) -> None:
    lane = judge_lane(tmp_path / "lane", tiny_bert, "cpu-int8", seed=2)
    other = publish_lanes(tmp_path / "other", {"cpu-int8": lane}, key=keys)
    with pytest.raises(InputError, match=r"model\.sig is of another bundle: its README\.md is another"):
        verify(copy, public_key(keys.public), other / "model.sig")


def test_an_unsigned_bundle_is_refused_where_a_signer_is_asked_for(copy: Path, tmp_path: Path, keys: Keys) -> None:
    (copy / "model.sig").unlink()
    with pytest.raises(InputError, match=r"the bundle is unsigned: it has no model\.sig"):
        verify(copy, public_key(keys.public))
    with pytest.raises(InputError, match="the signature cannot be read: No such file"):
        verify(copy, None, tmp_path / "nowhere.sig")


@pytest.mark.parametrize("path", ["mediaType", "dsseEnvelope", "verificationMaterial"])
def test_a_signature_without_a_part_is_said_to_be_none(copy: Path, path: str) -> None:
    document = json.loads((copy / "model.sig").read_bytes())
    for content in ({**document, path: None}, {name: item for name, item in document.items() if name != path}, []):
        (copy / "model.sig").write_bytes(canonical(content))
        with pytest.raises(InputError, match=r"model\.sig was changed, or is no signature"):
            verify(copy)


def test_a_statement_that_contradicts_itself_is_refused_before_any_key(copy: Path) -> None:
    document = json.loads((copy / "model.sig").read_bytes())
    statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    statement["predicate"]["resources"].pop()
    document["dsseEnvelope"]["payload"] = base64.b64encode(canonical(statement)).decode()
    (copy / "model.sig").write_bytes(canonical(document))
    with pytest.raises(InputError, match=r"model\.sig was changed"):
        verify(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is set and empty"),
        ("/nowhere/key.pem", "cannot be read: No such file"),
        ("no path\0", "cannot be read: this is no path"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is no private key in PEM"),
    ],
)
def test_a_wrong_signing_key_is_said_so_and_never_shown(content: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        signing_key({"MODELMILL_SIGNING_KEY": content})
    assert caught.value.where == "MODELMILL_SIGNING_KEY"
    assert "AAAA" not in str(caught.value)


def test_keys_that_cannot_sign_are_refused(tmp_path: Path) -> None:
    locked = make_keys(tmp_path, "locked", password="open sesame").private.read_text("ascii")
    plain = make_keys(tmp_path)
    cases = {
        "is encrypted, and no password is given": {"MODELMILL_SIGNING_KEY": locked},
        "or its password is another": {
            "MODELMILL_SIGNING_KEY": locked, "MODELMILL_SIGNING_KEY_PASSWORD": "wrong",
        },
        "has no password, and one is given": {
            "MODELMILL_SIGNING_KEY": str(plain.private), "MODELMILL_SIGNING_KEY_PASSWORD": "wrong",
        },
        "of another kind than EC": {"MODELMILL_SIGNING_KEY": str(make_other_keys(tmp_path).private)},
        "on the curve P-256": {
            "MODELMILL_SIGNING_KEY": str(make_keys(tmp_path, "k1", ec.SECP256K1()).private)
        },
        "is no private key in PEM": {"MODELMILL_SIGNING_KEY": str(plain.public)},
    }  # fmt: skip
    for message, environment in cases.items():
        with pytest.raises(InputError, match=message):
            signing_key(environment)
    opened = {"MODELMILL_SIGNING_KEY": locked, "MODELMILL_SIGNING_KEY_PASSWORD": "open sesame"}
    assert signing_key(opened) is not None
    assert signing_key({}) is None


def test_what_is_no_public_key_is_refused(tmp_path: Path) -> None:
    keys, other = make_keys(tmp_path), make_other_keys(tmp_path)
    (tmp_path / "text.pem").write_text("a text", "utf-8")
    for path, message in {
        tmp_path / "nowhere.pem": "cannot be read: No such file",
        tmp_path / "text.pem": "holds no public key in PEM",
        keys.private: "but a private one, which whoever checks must not have",
        other.public: "is of another kind than EC",
    }.items():
        with pytest.raises(InputError, match=message):
            public_key(path)
