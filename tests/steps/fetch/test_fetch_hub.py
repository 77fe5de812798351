"""fetch from the Hugging Face Hub: the real client against a server that speaks the Hub's API."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import constants

from hub_server import Hub, blob_id, hub_server
from modelmill.core.errors import DataError, ModelError, SourceError
from modelmill.core.progress import SilentProgress
from modelmill.steps.fetch.contract import DataSource, ModelSource, Settings
from modelmill.steps.fetch.resolve import resolve
from modelmill.steps.fetch.sources import hub as hub_source
from small_data import data_files, model_files

MODEL, DATA = "mill/tiny", "mill/intents"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub with a model and a data set; the client, which reads its environment when imported, is pointed at it."""
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(hub_source, "FIRST_WAIT_SECONDS", 0.01)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        server.push(MODEL, {**model_files(rows=600), "pytorch_model.bin": b"pickle", "modeling.py": b"evil()"})
        server.push(DATA, data_files(), kind="datasets")
        yield server


def test_a_floating_revision_that_moves_between_two_fetches_gives_two_pins(hub: Hub, fetch):
    first = fetch(model=f"hf://{MODEL}@main")
    commit = hub.push(MODEL, {**model_files(rows=600), "config.json": b'{"model_type": "bert", "new": 1}'})
    second = fetch(model=f"hf://{MODEL}@main")
    assert second.settings.model.pin == commit != first.settings.model.pin
    assert b"new" in (second.outputs.model / "config.json").read_bytes()
    assert b"new" not in (first.outputs.model / "config.json").read_bytes()
    assert first.settings.data == second.settings.data


def test_what_was_pinned_is_fetched_though_the_branch_has_moved(hub: Hub, fetch, data_folder):
    settings = Settings(
        task="text-classification",
        model=ModelSource(source=f"hf://{MODEL}"),
        data=DataSource(source=f"file:{data_folder}", tune=0.2),
    )
    pinned = resolve(settings, SilentProgress())
    hub.push(MODEL, {"config.json": b"{}"})
    found = fetch(settings=pinned)
    assert found.settings.model.pin == pinned.model.pin
    assert (found.outputs.model / "config.json").read_bytes() == model_files()["config.json"]


def test_a_whole_commit_is_its_own_pin_without_a_request(hub: Hub, data_folder):
    commit = "0123456789abcdef0123456789abcdef01234567"
    settings = Settings(
        task="text-classification",
        model=ModelSource(source=f"hf://{MODEL}@{commit}"),
        data=DataSource(source=f"file:{data_folder}"),
    )
    assert resolve(settings, SilentProgress()).model.pin == commit
    assert hub.requests == []


def test_only_the_files_that_matter_are_downloaded_from_a_tree_of_several_pages(hub: Hub, fetch):
    found = fetch(model=f"hf://{MODEL}", data=f"hf://datasets/{DATA}@main")
    assert sorted(path.name for path in found.outputs.model.iterdir()) == sorted(model_files())
    assert {path.name: path.read_bytes() for path in found.outputs.model.iterdir()} == model_files(rows=600)
    assert not any("pytorch_model" in request or "modeling.py" in request for request in hub.requests)
    assert sum("/tree/" in request and "models" in request for request in hub.requests) == 2
    assert len(found.rows("evaluate")) == 10


def test_a_data_set_may_lie_in_a_folder_and_at_a_revision_with_slashes(hub: Hub, fetch):
    moved = {f"parts/deep/{name}": content for name, content in data_files().items()}
    hub.push(DATA, moved, kind="datasets", branch="refs/pr/7")
    found = fetch(data=f"hf://{DATA}@refs/pr/7/parts/deep")
    assert found.rows("evaluate")[0]["id"] == "test.jsonl:1"


def test_a_download_that_breaks_off_goes_on_and_ends_in_the_same_bytes(hub: Hub, fetch):
    hub.cut_bodies = 1
    found = fetch(model=f"hf://{MODEL}")
    assert (found.outputs.model / "model.safetensors").read_bytes() == model_files(rows=600)["model.safetensors"]
    assert sum("/stored/" in request and request.startswith("GET") for request in hub.requests) == 2


def test_other_bytes_than_the_commit_lists_are_refused(hub: Hub, fetch):
    hub.corrupt = b"evil"
    with pytest.raises(SourceError, match=r"model\.safetensors has other bytes than its commit lists"):
        fetch(model=f"hf://{MODEL}")


def test_a_small_file_is_held_against_its_git_blob_id(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"some content\n")
    assert hub_source.git_blob_id(path, 13) == blob_id(b"some content\n") == "2ef267e25bd6c6a300bb473e604b092b6a48523b"


def test_a_busy_hub_is_asked_again_and_one_that_stays_busy_is_an_outside_error(hub: Hub, fetch):
    hub.failures = [503, 429, 500]
    assert fetch(model=f"hf://{MODEL}").rows("train")
    hub.failures = [503] * 20
    with pytest.raises(SourceError, match="503") as raised:
        fetch(model=f"hf://{MODEL}")
    assert len(hub.failures) == 16
    assert raised.value.exit_code == 5
    assert "run again" in str(raised.value)


def test_an_endpoint_that_nobody_listens_on_is_an_outside_error(hub: Hub, fetch, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="the Hub is away") as raised:
        fetch(model=f"hf://{MODEL}")
    assert "HF_ENDPOINT" in str(raised.value)


def test_an_endpoint_that_is_no_hub_is_an_outside_error(hub: Hub, fetch):
    hub.failures = [200]
    with pytest.raises(SourceError, match="HF_ENDPOINT"):
        fetch(model=f"hf://{MODEL}")


def test_offline_mode_is_an_outside_error_that_names_the_variable(hub: Hub, fetch, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE"):
        fetch(model=f"hf://{MODEL}")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("source", "says", "fix"),
    [
        ("hf://mill/nothing@main", "no model mill/nothing", "correct ORG/NAME"),
        (f"hf://{MODEL}@nobranch", "no revision 'nobranch'", "name a branch"),
        (f"hf://{MODEL}@main/nofolder", "no folder or file 'nofolder'", "correct the folder"),
        ("hf://mill", "names no model", "hf://ORG/NAME@REVISION"),
        ("hf://mill/tiny@main/../../etc", "names no model", "hf://ORG/NAME@REVISION"),
        ("hf://datasets/mill/intents", "names no model", "hf://ORG/NAME@REVISION"),
    ],
)
def test_what_the_hub_does_not_have_is_an_input_error_with_its_fix(source, says, fix, hub: Hub, fetch):
    with pytest.raises(ModelError, match=says) as raised:
        fetch(model=source)
    assert raised.value.exit_code == 2
    assert fix in str(raised.value)
    assert "model.source" in str(raised.value)


def test_a_missing_split_of_a_hub_data_set_names_those_there(hub: Hub, fetch):
    with pytest.raises(DataError, match="the splits found are test, train"):
        fetch(data=f"hf://{DATA}", evaluate="validation")


def test_a_gated_model_says_to_accept_its_terms_and_a_private_one_opens_with_the_token(hub: Hub, fetch, monkeypatch):
    hub.repositories["models", MODEL].token = "hf_secret"
    with pytest.raises(ModelError, match="no model mill/tiny that this run may see") as raised:
        fetch(model=f"hf://{MODEL}")
    assert "HF_TOKEN" in str(raised.value)
    hub.repositories["models", MODEL].gated = True
    with pytest.raises(ModelError, match="gated") as raised:
        fetch(model=f"hf://{MODEL}")
    assert "accept the terms" in str(raised.value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = fetch(model=f"hf://{MODEL}")
    assert set(hub.tokens) == {"Bearer hf_secret"}
    assert not hub.leaked
    assert "hf_secret" not in json.dumps(found.facts) + found.settings.model_dump_json()


def test_the_environment_alone_points_a_fresh_process_at_a_hub(hub: Hub, data_folder):
    settings = Settings(
        task="text-classification",
        model=ModelSource(source=f"hf://{MODEL}"),
        data=DataSource(source=f"file:{data_folder}"),
    )
    code = (
        "import sys; from modelmill.core.progress import SilentProgress as P\n"
        "from modelmill.steps.fetch.contract import Settings; from modelmill.steps.fetch.resolve import resolve\n"
        "print(resolve(Settings.model_validate_json(sys.argv[1]), P()).model.pin, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_of_environment"}
    command = [sys.executable, "-c", code, settings.model_dump_json()]
    ran = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert ran.stdout.split() == [hub.repositories["models", MODEL].names["main"], "False"]
    assert hub.tokens == ["Bearer hf_of_environment"]
