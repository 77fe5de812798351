"""Bundles as somebody without the key can make them: changed, and whole in themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelmill.core import manifest
from modelmill.core.bundle import digest_of


def reseal(directory: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite bundle.json as an attacker would: edited, with a checksum and a digest that fit."""
    document = json.loads((directory / "bundle.json").read_bytes())
    edit(document)
    files = {name: manifest.FileEntry(**entry) for name, entry in document["files"].items()}
    document["digest"] = digest_of(files)
    document.pop("checksum")
    document["checksum"] = "sha256:" + hashlib.sha256(manifest.canonical(document)).hexdigest()
    manifest.write_json(directory / "bundle.json", document)
