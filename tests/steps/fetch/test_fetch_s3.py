"""fetch from S3: boto3 against SeaweedFS's real server."""

from __future__ import annotations

import pytest

from modelmill.core.errors import DataError, DeploymentError, SourceError
from modelmill.core.progress import SilentProgress
from modelmill.steps.fetch.contract import DataSource, ModelSource, Settings
from modelmill.steps.fetch.resolve import resolve
from seaweed import Seaweed, client_of, seaweed
from small_data import data_files, json_lines, model_files


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with seaweed(tmp_path_factory.mktemp("weed") / "server") as running:
        client = client_of(running)
        for name, content in model_files(rows=200_000).items():
            client.put_object(Bucket=running.bucket, Key=f"in/model/{name}", Body=content)
        client.put_object(Bucket=running.bucket, Key="in/model/pytorch_model.bin", Body=b"pickle")
        client.put_object(Bucket=running.bucket, Key="in/model/deeper/config.json", Body=b"{}")
        yield running


@pytest.fixture
def bucket(server: Seaweed, monkeypatch, tmp_path):
    """The data set anew, and the environment that boto3's standard chain reads."""
    for name, value in server.environment(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    for name, content in data_files().items():
        client_of(server).put_object(Bucket=server.bucket, Key=f"in/data/{name}", Body=content)
    return server.bucket


def test_a_model_and_rows_come_out_of_a_bucket_byte_for_byte(bucket, fetch):
    found = fetch(model=f"s3://{bucket}/in/model", data=f"s3://{bucket}/in/data/")
    assert {path.name: path.read_bytes() for path in found.outputs.model.iterdir()} == model_files(rows=200_000)
    assert [row["id"] for row in found.rows("evaluate")] == [f"test.jsonl:{number}" for number in range(1, 11)]


def test_the_pin_follows_the_objects_that_are_read_and_no_others(bucket, fetch, server):
    source = f"s3://{bucket}/in/data"
    first = fetch(data=source).settings.data.pin
    client_of(server).put_object(Bucket=bucket, Key="in/data/notes.txt", Body=b"new")
    assert fetch(data=source).settings.data.pin == first
    changed = json_lines([{"text": "x", "label": "a"}, {"text": "y", "label": "b"}])
    client_of(server).put_object(Bucket=bucket, Key="in/data/test.jsonl", Body=changed)
    assert fetch(data=source).settings.data.pin != first


def test_an_object_that_changes_between_pin_and_run_is_an_outside_error(bucket, fetch, server, model_folder):
    settings = Settings(
        task="text-classification",
        model=ModelSource(source=f"file:{model_folder}"),
        data=DataSource(source=f"s3://{bucket}/in/data", tune=0.2),
    )
    pinned = resolve(settings, SilentProgress())
    client_of(server).put_object(Bucket=bucket, Key="in/data/test.jsonl", Body=b"{}")
    with pytest.raises(SourceError, match="changed between being pinned and being read"):
        fetch(settings=pinned)


def test_an_empty_prefix_and_a_missing_bucket_are_input_errors(bucket, fetch):
    with pytest.raises(DataError, match=f"no objects below s3://{bucket}/nothing/"):
        fetch(data=f"s3://{bucket}/nothing")
    with pytest.raises(DataError, match="correct the bucket") as raised:
        fetch(data="s3://no-such-bucket/data")
    assert raised.value.exit_code == 2
    with pytest.raises(DataError, match="names no bucket"):
        fetch(data="s3://")


def test_credentials_that_are_wrong_or_missing_are_told_without_being_shown(bucket, fetch, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-secret")
    with pytest.raises(DeploymentError, match="does not let") as raised:
        fetch(data=f"s3://{bucket}/in/data")
    assert "wrong-and-secret" not in str(raised.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(DeploymentError, match="credentials"):
        fetch(data=f"s3://{bucket}/in/data")


def test_a_server_that_is_away_is_an_outside_error(bucket, fetch, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match="S3 is away") as raised:
        fetch(data=f"s3://{bucket}/in/data")
    assert raised.value.exit_code == 5
