"""Storing and fetching a 2 GB file stays under 300 MB of memory, measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelmill.core.manifest import build
from modelmill.core.store import Store

SIZE = 2 << 30
LIMIT = 300_000_000
STORE = """
import sys, time
from pathlib import Path
from modelmill.core.manifest import Manifest
from modelmill.core.progress import SilentProgress
from modelmill.core.stores import open_store
uri, directory, document = sys.argv[1:]
manifest = Manifest.model_validate_json(document)
store = open_store(uri)
begun = time.monotonic()
if directory:
    store.put_artifact(Path(directory), manifest, SilentProgress())
else:
    store.get_artifact(manifest.digest, SilentProgress())
seconds = time.monotonic() - begun
# ru_maxrss of a child holds its parent's peak at the fork (fs/exec.c); VmHWM is of this process alone.
status = Path("/proc/self/status").read_text().split()
print(int(status[status.index("VmHWM:") + 1]) * 1024, seconds)
"""


def measure(uri: str, directory: Path | None, document: str) -> tuple[int, float]:
    """Peak RSS in bytes and seconds of a put (with a directory) or a get."""
    components = Path(__file__).parents[2] / "components"
    done = subprocess.run(
        [sys.executable, "-c", STORE, uri, str(directory or ""), document],
        env=os.environ | {"PYTHONPATH": str(components)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peak, seconds = done.stdout.split()
    return int(peak), float(seconds)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_gigabytes_go_up_and_come_back_under_300_mb(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    block = os.urandom(1 << 20)
    with (made / "model.safetensors").open("wb") as stream:
        for number in range(SIZE >> 20):
            stream.write(number.to_bytes(8) + block[8:])
    manifest = build(made, "checkpoint")
    document = manifest.model_dump_json()
    up, up_seconds = measure(store.uri, made, document)
    (made / "model.safetensors").unlink()
    assert store.check_artifact(manifest.digest) is None
    down, down_seconds = measure(store.uri, None, document)
    kind = type(store).__name__
    with capsys.disabled():
        sys.stderr.write(
            f"\n{kind}, 2 GiB: up {up / 1e6:.0f} MB peak RSS, {SIZE / up_seconds / 1e6:.0f} MB/s; "
            f"down {down / 1e6:.0f} MB peak RSS, {SIZE / down_seconds / 1e6:.0f} MB/s\n"
        )
    assert up < LIMIT
    assert down < LIMIT
    store.delete_artifact(manifest.digest)
    assert store.read_manifest(manifest.digest) is None
