"""Registrations in a real MLflow server: versions, tags, aliases; what a person of MLflow sees of the registry."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lane_artifacts import promoted_in, publish_settings
from mlflow_server import Mlflow, mlflow_server
from modelmill.core import bundle as bundles
from modelmill.core import channels, promotable, registry
from modelmill.core.errors import DeploymentError
from modelmill.core.progress import SilentProgress
from modelmill.core.store import Store
from modelmill.core.stores import open_store
from modelmill.steps.publish import mirrors
from modelmill.steps.publish.mirror import MirrorCredentials
from modelmill.steps.publish.mirror_settings import Mirrors
from modelmill.steps.publish.mirrors import Mirrored, State
from seaweed import Seaweed

pytestmark = pytest.mark.slow
LOOK = """
found = {v.version: [v.source, v.tags] for v in client.search_model_versions("name='NAME'")}
found = {"versions": found, "aliases": client.get_registered_model("NAME").aliases}
"""
FETCH = "found = mlflow.artifacts.download_artifacts('models:/NAME@staging', dst_path=DIRECTORY)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow") / "server") as found:
        yield found


def mirrored(server: Mlflow, name: str) -> Mirrors:
    return Mirrors.model_validate({"mlflow": {"address": server.address, "name": name}})


def told(store: Store, server: Mlflow, name: str, **options: Any) -> Mirrored:
    """What became of the mirror; nothing of it in the environment."""
    given = {"credentials": server.credentials, **options}
    [found] = mirrors.follow(store, mirrored(server, name), "banking", SilentProgress(), **given)
    return found


def test_a_bundle_is_one_version_and_its_channel_an_alias_that_follows_a_rollback(
    store: Store, made: list[Path], server: Mlflow
) -> None:
    first = promoted_in(store, made[0])
    assert told(store, server, "followed").error is None
    second = promoted_in(store, made[1])
    promoted_in(store, made[1], channel="production")
    assert told(store, server, "followed").error is None
    assert told(store, server, "followed").words == "nothing to do"
    looked = server.ask(LOOK.replace("NAME", "followed"))
    tags = {number: version[1] for number, version in looked["versions"].items()}
    assert {number: found["modelmill.digest"] for number, found in tags.items()} == {"1": first, "2": second}
    assert looked["aliases"] == {"staging": "2", "production": "2"}
    assert (tags["1"]["modelmill.verdict"], tags["1"]["modelmill.run"]) == ("pass", "run-1")
    assert tags["1"]["modelmill.cpu-int8.accuracy"] == "0.9900"
    assert tags["1"]["modelmill.cpu-int8.speedup.1x128"] == "2.50 [2.40, 2.60]"

    record = promotable.find_named(store, "banking", first)
    channels.roll_back(store, "banking", "staging", record, by="ada", why=None, progress=SilentProgress())
    assert told(store, server, "followed").words == "followed@staging is version 1"
    assert server.ask(LOOK.replace("NAME", "followed"))["aliases"] == {"staging": "1", "production": "2"}


def test_racing_writers_of_one_bundle_leave_one_version(store: Store, made: list[Path], server: Mlflow) -> None:
    promoted_in(store, made[0])
    found: list[Mirrored] = []
    writers = [threading.Thread(target=lambda: found.append(told(store, server, "raced"))) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [one.error for one in found] == [None] * 4
    looked = server.ask(LOOK.replace("NAME", "raced"))
    assert len(looked["versions"]) == 1
    assert looked["aliases"] == {"staging": next(iter(looked["versions"]))}


def test_mlflows_own_client_fetches_a_whole_bundle_from_a_store_on_s3(
    s3_server: Seaweed, made: list[Path], server: Mlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = s3_server.environment(tmp_path / "cache")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{s3_server.bucket}/mirrored")
    promoted_in(store, made[0])
    assert told(store, server, "fetched").error is None
    record = next(iter(registry.bundles(store, "banking")))
    looked = server.ask(LOOK.replace("NAME", "fetched"))
    assert looked["versions"]["1"][0] == store.artifact_uri(record.artifact)
    (tmp_path / "fetched").mkdir()
    code = FETCH.replace("NAME", "fetched").replace("DIRECTORY", repr(str(tmp_path / "fetched")))
    fetched = server.ask(code, {**given, "MLFLOW_S3_ENDPOINT_URL": s3_server.endpoint})
    assert bundles.verify(Path(fetched)).digest == record.bundle


def test_a_publish_that_mlflow_refuses_has_promoted_and_says_what_to_do(
    store: Store, made: list[Path], server: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MODELMILL_MIRROR_MLFLOW_PASSWORD", "not-the-password")
    settings = publish_settings(mirrors=mirrored(server, "refused"))
    first = promoted_in(store, made[0], mirrors=settings.mirrors)
    found = registry.show_channel(store, "banking", "staging")
    assert found is not None
    assert found.bundle == first
    [stands] = mirrors.standing(store, "banking")
    assert (stands.state, stands.missed) == (State.BEHIND, [first])
    assert "MLflow does not let modelmill write refused (401)" in str(stands.words)
    assert "MODELMILL_MIRROR_MLFLOW_PASSWORD" in str(stands.words)
    assert "not-the-password" not in str(stands.words)

    monkeypatch.setenv("MODELMILL_MIRROR_MLFLOW_PASSWORD", server.password)
    second = promoted_in(store, made[1], mirrors=settings.mirrors)
    [stands] = mirrors.standing(store, "banking")
    assert (stands.state, stands.missed, stands.words) == (State.CURRENT, [], None)
    versions = server.ask(LOOK.replace("NAME", "refused"))["versions"]
    assert [versions[number][1]["modelmill.digest"] for number in ("1", "2")] == [first, second]


def test_what_mlflow_does_not_take_as_an_alias_is_said_in_its_words(
    store: Store, made: list[Path], server: Mlflow
) -> None:
    promoted_in(store, made[0], channel="eu.west")
    error = told(store, server, "dotted").error
    assert isinstance(error, DeploymentError)
    assert "MLflow refuses (400): INVALID_PARAMETER_VALUE" in error.what
    assert "the channel's name" in str(error.fix)


def test_an_address_that_is_no_mlflow_is_said(store: Store, made: list[Path], server: Mlflow) -> None:
    promoted_in(store, made[0])
    settings = Mirrors.model_validate({"mlflow": {"address": f"{server.address}/somewhere"}})
    used = MirrorCredentials(mlflow_username="admin", mlflow_password=server.password)
    [found] = mirrors.follow(store, settings, "banking", SilentProgress(), credentials=used)
    assert isinstance(found.error, DeploymentError)
    assert "no MLflow server" in found.error.what
