"""What containers on this machine are given of the keys of who starts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelmill import recipe as recipes
from modelmill.core.local_store import LocalStore
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners import sight
from modelmill.runners.containers import describe
from signing_keys import make_keys
from whole_line import make_recipe


def test_a_signing_key_is_for_publish_alone_and_read_where_its_path_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = make_keys(tmp_path / "keys")
    monkeypatch.setenv("MODELMILL_SIGNING_KEY", str(keys.private))
    job = Job(recipes.load(make_recipe(tmp_path)), Deployment())
    with sight.on_this_machine(job, LocalStore(tmp_path / "store")) as here:
        secrets = {item.id: {secret.name for secret in item.secrets} for item in describe(here).containers}
        assert str(keys.private.parent) not in sight.binds(here.deployment)
    holders = {id for id, names in secrets.items() if "MODELMILL_SIGNING_KEY" in names}
    assert holders == {"publish"}
    content = keys.private.read_text("utf-8")
    assert sight.secret_values(secrets["publish"])["MODELMILL_SIGNING_KEY"] == content
    monkeypatch.setenv("MODELMILL_SIGNING_KEY", content)
    assert sight.secret_values(["MODELMILL_SIGNING_KEY"]) == {"MODELMILL_SIGNING_KEY": content}
    monkeypatch.setenv("MODELMILL_SIGNING_KEY", "/no/such/key.pem")
    assert sight.secret_values(["MODELMILL_SIGNING_KEY"]) == {"MODELMILL_SIGNING_KEY": "/no/such/key.pem"}


def test_what_a_source_reads_of_the_environment_is_passed_and_files_that_it_names_are_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {}
    for name in ("AWS_CA_BUNDLE", "AWS_WEB_IDENTITY_TOKEN_FILE", "HF_TOKEN_PATH"):
        files[name] = tmp_path / name.lower()
        files[name].write_text("PLANTED", "utf-8")
        monkeypatch.setenv(name, str(files[name]))
    values = {"HF_ENDPOINT": "http://hub.example", "HF_TOKEN": "PLANTED", "https_proxy": "http://a:PLANTED@proxy:3128"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    job = Job(recipes.load(make_recipe(tmp_path)), Deployment(env={"HF_ENDPOINT": "http://mirror.example"}))
    with sight.on_this_machine(job, LocalStore(tmp_path / "store")) as here:
        fetch = next(item for item in describe(here).containers if item.id == "fetch")
        written = here.deployment.model_dump_json()
    assert "PLANTED" not in written
    assert fetch.env["HF_ENDPOINT"] == "http://mirror.example"
    assert {name: fetch.env[name] for name in files} == {name: str(path) for name, path in files.items()}
    assert {str(path) for path in files.values()} <= set(sight.binds(here.deployment))
    secrets = {secret.name for secret in fetch.secrets}
    assert {"HF_TOKEN", "https_proxy"} <= secrets
    assert "HF_HOME" not in {*secrets, *fetch.env}
    assert sight.secret_values(["HF_TOKEN", "https_proxy"]) == {
        name: values[name] for name in ("HF_TOKEN", "https_proxy")
    }
