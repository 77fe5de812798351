"""KServe's own types, from its Python client's wheel, held strictly against an object: names and kinds of values."""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from helm import cache, missing

_PACKAGE = "kserve==0.21.0"
_SHA256 = "df9bc5888704d9085015e08f1a8fced5ff0698f3becc6212d4e7b8234c71623b"
_KINDS = {
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): "V1alpha1ServingRuntime",
}
_SCALARS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}


def problems(item: dict[str, Any]) -> list[str]:
    """What of an object KServe's types do not have."""
    return _problems(item, _KINDS[item["apiVersion"], item["kind"]], item["kind"])


def _problems(value: Any, kind: str, at: str) -> list[str]:
    listed, mapped = re.fullmatch(r"list\[(.+)\]", kind), re.fullmatch(r"dict\((\w+), (.+)\)", kind)
    if kind == "object":
        return []
    if kind in _SCALARS:
        right = isinstance(value, _SCALARS[kind]) and (kind == "bool") is isinstance(value, bool)
        return [] if right else [f"{at} is no {kind}"]
    if listed:
        if not isinstance(value, list):
            return [f"{at} is no list"]
        return [found for number, item in enumerate(value) for found in _problems(item, listed[1], f"{at}[{number}]")]
    if not isinstance(value, dict):
        return [f"{at} is no mapping"]
    if mapped:
        return [found for name, item in value.items() for found in _problems(item, mapped[2], f"{at}.{name}")]
    types = _fields(kind)
    found = [f"{at} has no field {name}" for name in value if name not in types]
    return found + [
        one for name, item in value.items() if name in types for one in _problems(item, types[name], f"{at}.{name}")
    ]


def _fields(kind: str) -> dict[str, str]:
    """A type's fields: name in JSON → type."""
    own = _kserve().get(kind)
    if own is not None:
        return own
    theirs = getattr(client, kind)
    return {theirs.attribute_map[name]: type for name, type in theirs.openapi_types.items()}


@functools.cache
def _kserve() -> dict[str, dict[str, str]]:
    found = {}
    with zipfile.ZipFile(_wheel()) as wheel:
        for name in wheel.namelist():
            if not re.fullmatch(r"kserve/models/\w+\.py", name) or name.endswith("__init__.py"):
                continue
            for node in ast.parse(wheel.read(name)).body:
                if isinstance(node, ast.ClassDef):
                    tables = {
                        target.id: ast.literal_eval(part.value)
                        for part in node.body
                        if isinstance(part, ast.Assign)
                        for target in part.targets
                        if isinstance(target, ast.Name) and target.id in {"openapi_types", "attribute_map"}
                    }
                    if len(tables) == 2:
                        names = tables["attribute_map"]
                        found[node.name] = {names[key]: type for key, type in tables["openapi_types"].items()}
    return found


def _wheel() -> Path:
    """The wheel, downloaded once."""
    path = cache() / "kserve-0.21.0.whl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, _PACKAGE]
            ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
            if ended.returncode != 0:
                missing(f"KServe's types cannot be had (pip download {_PACKAGE}): {ended.stderr.strip()[-300:]}")
            (made,) = Path(folder).glob("*.whl")
            made.replace(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        pytest.fail(f"{path} is not the wheel of {_PACKAGE}: remove it")
    return path
