"""Small artifacts and records for the tests of the store."""

from __future__ import annotations

from pathlib import Path

from modelmill.core import hardware
from modelmill.core.contract import Kind
from modelmill.core.manifest import Manifest, build
from modelmill.core.progress import SilentProgress
from modelmill.core.records import StepRecord, utc_now
from modelmill.core.store import Store

SILENT = SilentProgress()


def make_directory(at: Path, files: dict[str, bytes]) -> Path:
    """A directory with the files."""
    for name, content in files.items():
        path = at / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    at.mkdir(parents=True, exist_ok=True)
    return at


def put(store: Store, at: Path, files: dict[str, bytes]) -> str:
    """Store the files as an artifact; its digest."""
    manifest = build(make_directory(at, files), "model")
    store.put_artifact(at, manifest, SILENT)
    return manifest.digest


def contents(directory: Path, manifest: Manifest) -> dict[str, bytes]:
    """The artifact's files as they lie in a directory."""
    return {name: (directory / name).read_bytes() for name in manifest.files}


def make_record(key: str, outputs: dict[str, str], step: str = "export", **changes: object) -> StepRecord:
    """A record of a step under a key."""
    document = {
        "step": step,
        "key": key,
        "kind": Kind.REPRODUCIBLE,
        "settings": {"opset": 20},
        "inputs": {"checkpoint": "sha256:" + "c" * 64},
        "packages": {"onnx": "1.20.0"},
        "hardware": hardware.cpu(),
        "outputs": outputs,
        "seconds": 1.5,
        "peak_rss_bytes": 1 << 20,
        "made_at": utc_now(),
        "modelmill": "0.1.0",
    }
    return StepRecord.model_validate(document | changes)


def key_of(number: int) -> str:
    """A step key for tests."""
    return f"sha256:{number:064x}"
