"""A writer killed with SIGKILL at any point leaves nothing that a later run could take for a result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from modelmill.core import records
from modelmill.core.manifest import build
from modelmill.core.store import Store
from modelmill.core.stores import open_store
from stored_things import SILENT, key_of, make_directory, make_record

WRITER = Path(__file__).with_name("killed_writer.py")


def run_writer(uri: str, directory: Path, points: list[int]) -> str:
    """Run the writer once for each point; what it printed."""
    paths = [str(WRITER.parents[1]), str(WRITER.parents[2] / "components")]
    done = subprocess.run(
        [sys.executable, str(WRITER), uri, str(directory), *map(str, points)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_is_visible_of_a_writer_killed_at_any_point(store: Store, tmp_path: Path) -> None:
    remote = store.uri.startswith("s3://")
    # The large file goes up in parts on S3.
    large = (17 << 20) if remote else (1 << 20) + 1
    made = make_directory(tmp_path / "made", {"model.onnx": os.urandom(large), "deep/vocab.txt": b"a" * 100, "m": b""})
    manifest = build(made, "model")
    events = int(run_writer(store.uri, made, [-1]))
    assert events > 15
    points = list(range(1, events + 1, max(1, events // (6 if remote else 24))))
    run_writer(store.uri, made, points)
    whole = 0
    for point in points:
        found_store = open_store(f"{store.uri}/point{point}")
        record, reasons = records.find(found_store, key_of(1))
        problem = found_store.check_artifact(manifest.digest)
        assert reasons == []
        assert record is None or problem is None
        assert problem in (None, "is missing")
        whole += record is not None
        # The next run stores the output and finds it.
        found_store.put_artifact(made, manifest, SILENT)
        record = records.adopt_or_store(found_store, make_record(key_of(1), {"model": manifest.digest}))
        assert records.find(found_store, key_of(1)) == (record, [])
        # What the dead writer left is collected.
        found_store.discard_leftovers(found_store.now() + 60)
        assert found_store.discard_leftovers(found_store.now() + 60).count == 0
        assert found_store.check_artifact(manifest.digest) is None
    assert whole < len(points)
