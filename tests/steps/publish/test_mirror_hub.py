"""Registrations in a repository of the Hub: its own client against a server that speaks the Hub's API.

Files go by Git LFS (HF_HUB_DISABLE_XET), for Xet's own storage cannot run here.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, snapshot_download

from hub_server import Hub, HubRepository
from hub_writes import writable_hub
from lane_artifacts import promoted_in, publish_settings
from modelmill.core import bundle as bundles
from modelmill.core import channels, promotable, registry
from modelmill.core.errors import DeploymentError, MirrorError
from modelmill.core.local_store import LocalStore
from modelmill.core.progress import SilentProgress
from modelmill.core.stepkey import keyed
from modelmill.core.store import Store
from modelmill.deployment import Deployment
from modelmill.runners.result import Status
from modelmill.steps.publish import hub_mirror, mirrors
from modelmill.steps.publish.mirror import MirrorCredentials
from modelmill.steps.publish.mirror_settings import Mirrors
from modelmill.steps.publish.mirrors import Mirrored, State
from whole_line import make_recipe, run_in_this_process

NAME, TOKEN = "mill/banking", "hf_written-by-a-test"
VARIABLE = "MODELMILL_MIRROR_HUB_TOKEN"
# huggingface_hub 2.4.0 sends large files by a name of httpx2's argument that is going out of use.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes/text:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub with an empty repository, as it is made there; the client reads its environment when imported."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(hub_mirror, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with writable_hub() as server:
        server.push(NAME, {".gitattributes": b"*.onnx filter=lfs diff=lfs merge=lfs -text\n"})
        repository_of(server).token = TOKEN
        yield server


def repository_of(hub: Hub) -> HubRepository:
    return hub.repositories["models", NAME]


def mirrored(hub: Hub, **changes: Any) -> Mirrors:
    return Mirrors.model_validate({"hub": {"repository": "mill/{model}", "address": hub.url, **changes}})


def told(store: Store, hub: Hub, token: str | None = TOKEN, **changes: Any) -> Mirrored:
    used = MirrorCredentials(hub_token=token)
    [found] = mirrors.follow(store, mirrored(hub, **changes), "banking", SilentProgress(), credentials=used)
    return found


def back_to(store: Store, digest: str, channel: str = "staging") -> None:
    record = promotable.find_named(store, "banking", digest)
    channels.roll_back(store, "banking", channel, record, by="ada", why=None, progress=SilentProgress())


def fetched(hub: Hub, revision: str, at: Path) -> Path:
    """A revision, as a person of the Hub downloads it."""
    directory = snapshot_download(
        NAME, revision=revision, endpoint=hub.url, token=TOKEN, local_dir=at, ignore_patterns=".gitattributes"
    )
    shutil.rmtree(Path(directory) / ".cache")
    return Path(directory)


def test_a_bundle_is_one_tagged_commit_and_its_channel_a_branch_that_verifies(
    store: Store, made: list[Path], hub: Hub, tmp_path: Path
) -> None:
    first = promoted_in(store, made[0])
    assert told(store, hub).error is None
    assert told(store, hub).words == "nothing to do"
    second = promoted_in(store, made[1])
    assert told(store, hub).error is None
    repository = repository_of(hub)
    assert set(repository.names) == {"main", hub_mirror.BUNDLES, "staging"}
    assert set(repository.tags) == {first.replace(":", "-"), second.replace(":", "-")}
    written = [message for message in repository.messages.values() if message.startswith("registered: ")]
    assert written == [f"registered: banking {digest[:19]}" for digest in (first, second)]
    for revision, digest in (("staging", second), (first.replace(":", "-"), first)):
        directory = fetched(hub, revision, tmp_path / revision)
        assert bundles.verify(directory).digest == digest
    assert not hub.leaked


def test_a_rollback_takes_the_branch_back_and_leaves_no_file_of_the_other_bundle(
    store: Store, made: list[Path], hub: Hub, tmp_path: Path
) -> None:
    first = promoted_in(store, made[0])
    told(store, hub)
    promoted_in(store, made[1])
    told(store, hub)
    repository = repository_of(hub)
    # A file that only the present bundle has: it goes with it.
    commit = repository.names["staging"]
    repository.commits[commit] = {**repository.commits[commit], "of-the-second.bin": b"x"}
    before = len(repository.commits)
    back_to(store, first)
    assert told(store, hub).error is None
    assert len(repository.commits) == before + 1
    assert bundles.verify(fetched(hub, "staging", tmp_path / "back")).digest == first
    assert repository.parents[repository.names["staging"]] == commit


def test_main_follows_production_unless_told_otherwise(store: Store, made: list[Path], hub: Hub) -> None:
    digest = promoted_in(store, made[0], channel="production")
    assert told(store, hub).error is None
    repository = repository_of(hub)
    assert "bundle.json" in repository.commits[repository.names["main"]]
    assert ".gitattributes" in repository.commits[repository.names["main"]]
    assert "production" not in repository.names
    assert told(store, hub, main=None).done == (f"the branch production of {NAME} holds {digest}",)


def test_a_writer_killed_between_commit_and_tag_is_made_good_without_a_second_commit(
    store: Store, made: list[Path], hub: Hub
) -> None:
    promoted_in(store, made[0])
    told(store, hub)
    repository = repository_of(hub)
    commits, tags = len(repository.commits), dict(repository.tags)
    repository.tags.clear()
    assert told(store, hub).error is None
    assert (len(repository.commits), repository.tags) == (commits, tags)


def test_racing_writers_leave_one_commit_for_each_bundle_and_the_newest_move(
    store: Store, made: list[Path], hub: Hub, tmp_path: Path
) -> None:
    digests = [promoted_in(store, directory) for directory in made]
    found: list[Mirrored] = []
    writers = [threading.Thread(target=lambda: found.append(told(store, hub))) for _ in range(6)]
    for number, writer in enumerate(writers):
        writer.start()
        back_to(store, digests[number % 2])
    for writer in writers:
        writer.join()
    assert [one.error for one in found] == [None] * 6
    repository = repository_of(hub)
    assert sum(message.startswith("registered: ") for message in repository.messages.values()) <= len(digests)
    assert set(repository.tags) <= {digest.replace(":", "-") for digest in digests}
    assert bundles.verify(fetched(hub, "staging", tmp_path / "at")).digest == digests[1]


def test_a_hub_that_is_away_neither_stops_nor_undoes_a_promotion_and_is_told_by_the_next(
    store: Store, made: list[Path], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    away = Mirrors.model_validate({"hub": {"repository": "mill/{model}", "address": "http://127.0.0.1:9"}})
    first = promoted_in(store, made[0], mirrors=away)
    found = registry.show_channel(store, "banking", "staging")
    assert found is not None
    assert found.bundle == first
    [stands] = mirrors.standing(store, "banking")
    assert (stands.state, stands.missed) == (State.BEHIND, [first])
    assert "the Hub is away" in str(stands.words)
    # The bundle that was missed is told though no channel names it by now.
    second = promoted_in(store, made[1], mirrors=mirrored(hub))
    assert set(repository_of(hub).tags) == {first.replace(":", "-"), second.replace(":", "-")}
    [stands] = mirrors.standing(store, "banking")
    assert (stands.state, stands.missed, stands.words) == (State.CURRENT, [], None)


def test_a_busy_hub_is_asked_again(store: Store, made: list[Path], hub: Hub) -> None:
    promoted_in(store, made[0])
    hub.failures[:] = [503, 429]
    assert told(store, hub).error is None


def test_an_address_that_answers_something_else_stops_nothing(store: Store, made: list[Path], hub: Hub) -> None:
    with odd_server(b"[1]") as address:
        promoted_in(store, made[0])
        given = Mirrors.model_validate(
            {"mlflow": {"address": address}, "hub": {"repository": NAME, "address": address}}
        )
        used = MirrorCredentials(hub_token=TOKEN)
        found = mirrors.follow(store, given, "banking", SilentProgress(), credentials=used)
    assert [one.state for one in found] == [State.BEHIND] * 2
    assert all(isinstance(one.error, DeploymentError) for one in found)
    assert ["mirrors." in one.words for one in found] == [True, True]


def test_what_is_wrong_is_said_with_what_to_do_and_no_secret(store: Store, made: list[Path], hub: Hub) -> None:
    promoted_in(store, made[0])
    cases: list[tuple[Any, type, str, str]] = [
        ({"token": "hf_planted"}, DeploymentError, "no model repository mill/banking that this token may", VARIABLE),
        ({"repository": "mill/nowhere"}, DeploymentError, "no model repository mill/nowhere", "hf repos create"),
        ({"token": None}, DeploymentError, "there is no token to write mill/banking with", "release_secrets"),
        ({"address": "http://127.0.0.1:9"}, MirrorError, "the Hub is away", "mirrors.hub.address"),
        ({"address": f"{hub.url}/elsewhere"}, DeploymentError, "the Hub refuses", "mirrors.hub.address"),
    ]
    for changes, kind, what, fix in cases:
        error = told(store, hub, **changes).error
        assert type(error) is kind, changes
        assert what in error.what
        assert fix in str(error.fix)
        assert "hf_" not in str(error)
    repository_of(hub).gated = True
    error = told(store, hub).error
    assert isinstance(error, DeploymentError)
    assert "may not write" in error.what


def test_a_channel_called_main_is_refused_where_main_follows_another(store: Store, made: list[Path], hub: Hub) -> None:
    promoted_in(store, made[0], channel="main")
    error = told(store, hub).error
    assert isinstance(error, DeploymentError)
    assert "the branch main follows production" in error.what
    assert told(store, hub, main="main").error is None


@contextmanager
def odd_server(content: bytes) -> Iterator[str]:
    """A server that gives everybody the same JSON."""

    class Odd(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def modelmill(store: Store, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", **variables}
    command = [sys.executable, "-m", "modelmill.cli.main", *words, "--store", store.uri]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_modelmill_mirror_tells_what_was_missed_and_ends_with_5_where_the_hub_is_away(
    store: Store, made: list[Path], hub: Hub, tmp_path: Path
) -> None:
    digests = [promoted_in(store, directory) for directory in made]
    deployment = tmp_path / "deployment.yaml"
    given = ("mirror", "banking", "--deployment", str(deployment))
    for address, code, said in (("http://127.0.0.1:9", 5, "the Hub is away"), (hub.url, 0, "current")):
        deployment.write_text(json.dumps({"mirrors": {"hub": {"repository": NAME, "address": address}}}))
        done = modelmill(store, *given, **{VARIABLE: TOKEN})
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert said in done.stdout
    # Only what a channel names: a bundle registered before there was a mirror is told by --all.
    assert set(repository_of(hub).tags) == {digests[1].replace(":", "-")}
    done = modelmill(store, *given, "--all", "--json", **{VARIABLE: TOKEN})
    assert [one["state"] for one in json.loads(done.stdout)] == ["current"]
    assert len(repository_of(hub).tags) == 2
    done = modelmill(store, *given, **{VARIABLE: "hf_planted"})
    assert done.returncode == 2
    assert "hf_planted" not in done.stdout + done.stderr

    deployment.write_text(json.dumps({"mirrors": {"hub": {"repository": NAME, "address": hub.url}}}))
    done = modelmill(store, "channel", "rollback", "banking", "staging", "--deployment", str(deployment),
                     **{VARIABLE: TOKEN})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"hub is current: the branch staging of {NAME} holds {digests[0]}" in " ".join(done.stdout.split())


def test_mirror_without_a_mirror_or_a_model_says_so(store: Store, made: list[Path], tmp_path: Path) -> None:
    done = modelmill(store, "mirror", "banking")
    assert (done.returncode, "the deployment names no mirror" in done.stderr) == (2, True)
    deployment = tmp_path / "deployment.yaml"
    deployment.write_text(json.dumps({"mirrors": {"hub": {"repository": NAME}}}))
    done = modelmill(store, "mirror", "baking", "--deployment", str(deployment))
    assert (done.returncode, "no bundle of baking is registered" in done.stderr) == (2, True)


@pytest.mark.slow
def test_a_run_is_promoted_whatever_its_mirror_does_and_says_how_that_stands(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    recipe, store = (
        make_recipe(tmp_path, publish={"model": "banking", "channel": "staging"}),
        LocalStore(tmp_path / "s"),
    )
    keys = []
    for address, state in (("http://127.0.0.1:9", "behind"), (hub.url, "current")):
        given = Mirrors.model_validate({"hub": {"repository": NAME, "address": address}})
        document = run_in_this_process(recipe, store, deployment=Deployment(mirrors=given))
        assert document.status is Status.PROMOTED
        assert [(one["mirror"], one["state"]) for one in document.mirrors] == [("hub", state)]
        keys.append([row.key for row in document.steps])
    assert keys[0] == keys[1]
    assert all(row.cached for row in document.steps)
    assert set(repository_of(hub).tags) == {str(document.bundle_digest).replace(":", "-")}


def test_where_the_client_is_not_installed_that_is_said_and_which_image_has_it() -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from modelmill.steps.publish.hub_mirror import opened\n"
        "from modelmill.steps.publish.mirror import MirrorCredentials\n"
        "from modelmill.steps.publish.mirror_settings import HubMirror\n"
        "opened(HubMirror(repository='a/b'), 'b', MirrorCredentials(hub_token='t'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DeploymentError: the Hub's client, huggingface_hub, is not installed" in done.stderr
    assert "the cpu image has it" in done.stderr


def test_no_mirror_is_in_publishs_step_key(hub: Hub) -> None:
    with_mirrors = publish_settings(mirrors=mirrored(hub))
    assert keyed(with_mirrors) == keyed(publish_settings())
