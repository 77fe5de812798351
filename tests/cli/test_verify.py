"""``modelmill verify`` as a user meets it: what it says, its exit codes, and that it needs little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lane_artifacts import judge_lane, publish_lanes
from modelmill.core.keys import public_key
from signing_keys import Keys, make_keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, keys: Keys) -> Path:
    work = tmp_path_factory.mktemp("verify")
    return publish_lanes(work / "bundle", {"cpu-int8": judge_lane(work / "lane", tiny_bert)}, key=keys)


def modelmill(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelmill.cli.main", *(str(item) for item in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_it_says_who_signed_and_whether_that_was_checked(bundle: Path, keys: Keys) -> None:
    fingerprint = public_key(keys.public).fingerprint
    checked = modelmill("verify", bundle, "--key", keys.public)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.splitlines()[0] == f"banking: whole, signed by {fingerprint}"
    said = modelmill("verify", bundle).stdout.splitlines()[0]
    assert said == f"banking: whole, signed, it says, by {fingerprint}: give --key PUBLIC.pem to check that"
    document = json.loads(modelmill("verify", bundle, "--key", keys.public, "--json").stdout)
    assert (document["signature"], document["signer"]) == ("checked", fingerprint)


def test_what_is_wrong_ends_with_2_and_one_message(bundle: Path, tmp_path: Path) -> None:
    other = make_keys(tmp_path)
    for arguments, message in (
        ([bundle, "--key", other.public], "model.sig is of another signer"),
        ([bundle, "--key", other.private], "which whoever checks must not have"),
        ([bundle, "--signature", tmp_path / "nowhere"], "the signature cannot be read"),
    ):
        done = modelmill("verify", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert "fix:" in done.stderr
        assert "Traceback" not in done.stderr


def test_no_command_loads_ciphers_that_does_not_need_them(bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import modelmill.cli.main\n"
        "from modelmill.core.signature import verify\n"
        f"verify(Path({str(bundle)!r})); print([name for name in sys.modules if name.startswith('cryptography')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
