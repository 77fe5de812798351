"""The step key: what decides whether a stored output is this step's output."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import metadata
from typing import cast

from pydantic import BaseModel

from modelmill.core.contract import BUILDS, JSON, Closed, KeyOn, StepContract, Unkeyed
from modelmill.core.errors import UsageError
from modelmill.core.hardware import Hardware
from modelmill.core.manifest import canonical

InputDigests = Mapping[str, str | Mapping[str, str]]
"""Input port → digest, or for a merge port target name → digest."""


def plain_inputs(inputs: InputDigests) -> dict[str, str | dict[str, str]]:
    """The digests as documents hold them: a copy in plain mappings."""
    return {port: at if isinstance(at, str) else dict(at) for port, at in inputs.items()}


def keyed(settings: BaseModel) -> dict[str, JSON]:
    """The settings that shape the output: fields marked `Unkeyed` are left out, at any depth."""

    def value(item: object) -> JSON:
        if isinstance(item, BaseModel):
            return keyed(item)
        if isinstance(item, Mapping):
            return {str(key): value(entry) for key, entry in item.items()}
        if isinstance(item, list | tuple):
            return [value(entry) for entry in item]
        return cast("JSON", item)

    dumped: dict[str, JSON] = {}
    for name, field in type(settings).model_fields.items():
        if not any(isinstance(mark, Unkeyed) for mark in field.metadata):
            dumped[name] = value(getattr(settings, name))
    return dumped


def package_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of distributions, whichever build of each is installed.

    Raises:
        UsageError: One is not installed.
    """
    versions = {}
    for package in packages:
        found = next((at for at in map(_version, (package, *BUILDS.get(package, ()))) if at is not None), None)
        if found is None:
            what = f"the package {package} is not installed here"
            raise UsageError(what, fix="pip install 'modelmill[ml]'")
        versions[package] = found
    return versions


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def step_key(
    contract: StepContract,
    settings: Closed,
    inputs: InputDigests,
    hardware: Hardware,
    versions: Mapping[str, str] | None = None,
) -> str:
    """``sha256:…`` over all that decides the step's output.

    Args:
        contract: The step; its name, part and version are in the key.
        settings: Resolved settings.
        inputs: Digests of what lies at the input ports.
        hardware: The machine; only what the contract's ``key_on`` and ``key_on_of`` name enters.
        versions: Versions of the contract's packages for these settings; looked up when left out.
    """
    machine: dict[str, JSON] = {}
    key_on = contract.key_on_for(settings)
    if KeyOn.THREADS in key_on:
        machine["threads"] = hardware.threads
    if KeyOn.INSTRUCTION_SET in key_on:
        machine["instruction_set"] = list(hardware.instruction_set)
    if KeyOn.HARDWARE_CLASS in key_on:
        machine["hardware_class"] = hardware.hardware_class
    document = {
        "step": contract.name,
        "part": contract.part,
        "version": contract.version,
        "settings": keyed(settings),
        "inputs": plain_inputs(inputs),
        "packages": dict(versions if versions is not None else package_versions(contract.packages_for(settings))),
        "machine": machine,
    }
    return "sha256:" + hashlib.sha256(canonical(document)).hexdigest()
