"""Every contract is a component: kfp's form and ours have the same ports, parameters, types, defaults and words."""

from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import docstring_parser
import pytest
import yaml

from environments import ROOT
from modelmill.core.contract import StepContract
from modelmill.deployment import Deployment
from modelmill.line import LINE
from modelmill.runners.components import DECISION, Component, component_of

kfp = pytest.importorskip("kfp")
from modelmill import kubeflow  # noqa: E402 - it imports kfp

CONTRACTS = [node.contract for node in LINE]
STEPS = ROOT / "components" / "modelmill" / "steps"
Signature = dict[str, tuple[str, str, Any, str]]
"""Name → direction, type, default (``...`` where it is required) and description."""


def declared(component: Component) -> Signature:
    """What the contract says."""
    found: Signature = {item.name: ("in", item.type, ..., item.description) for item in component.inputs}
    found |= {item.name: ("out", item.type, ..., item.description) for item in component.outputs}
    if component.decides:
        found[DECISION] = ("out", "String", ..., "what the verdict says: pass, fail or inconclusive")
    for item in component.parameters:
        found[item.name] = ("in", item.type, ... if item.required else item.default, item.description)
    return found


def written(function: Any) -> Signature:
    """What component.py says."""
    spec = function.component_spec
    words = {item.arg_name: item.description for item in docstring_parser.parse(function.pipeline_func.__doc__).params}
    parameters = inspect.signature(function.pipeline_func).parameters
    found: Signature = {}
    for name in parameters:
        direction, slot = ("in", spec.inputs[name]) if name in spec.inputs else ("out", spec.outputs[name])
        kind = slot.type.removeprefix("system.").partition("@")[0]
        default = slot.default if getattr(slot, "optional", False) else ...
        assert words[name] is not None
        assert words[name].endswith(".")
        found[name] = (direction, kind, default, " ".join(words[name].removesuffix(".").split()))
    assert set(words) == set(found)
    return found


@pytest.mark.parametrize("contract", CONTRACTS, ids=[contract.id for contract in CONTRACTS])
class TestEveryComponent:
    def test_its_signature_is_the_contracts(self, contract: StepContract) -> None:
        component = component_of(contract)
        function = getattr(kubeflow, component.name)
        assert written(function) == declared(component)
        assert function.component_spec.name == contract.id
        assert function.component_spec.description == contract.summary

    def test_its_container_runs_that_step_on_every_port(self, contract: StepContract) -> None:
        component = component_of(contract)
        spec = getattr(kubeflow, component.name).component_spec.implementation.container
        assert spec.command == ["modelmill", "component", contract.id]
        ports = [f"--input={item.name}={{{{$.inputs.artifacts['{item.name}'].path}}}}" for item in component.inputs]
        ports += [
            f"--output={item.name}={{{{$.outputs.artifacts['{item.name}'].path}}}}"
            for item in component.outputs
            if item.port
        ]
        assert spec.args == [*ports, "--executor-input={{$}}"]
        assert spec.image == Deployment().images["cpu"]

    def test_its_yaml_loads_and_has_the_same_inputs(self, contract: StepContract) -> None:
        name = f"component-{contract.part}.yaml" if contract.part else "component.yaml"
        path = STEPS / contract.name.replace("-", "_") / name
        loaded = kfp.components.load_component_from_file(str(path)).component_spec
        signature = declared(component_of(contract))
        assert {name for name, (direction, *_) in signature.items() if direction == "in"} == set(loaded.inputs or {})
        assert {name for name, (direction, *_) in signature.items() if direction == "out"} == set(loaded.outputs or {})

    def test_its_folder_is_laid_out_as_kubeflows_catalogue(self, contract: StepContract) -> None:
        # kubeflow/pipelines-components, scripts/validate_metadata: these fields in this order, and no other.
        folder = STEPS / contract.name.replace("-", "_")
        assert {"__init__.py", "component.py", "metadata.yaml", "README.md"} <= {path.name for path in folder.iterdir()}
        metadata = yaml.safe_load((folder / "metadata.yaml").read_text("utf-8"))
        assert list(metadata) == ["name", "stability", "dependencies", "tags", "lastVerified"]
        assert metadata["name"] == folder.name
        assert metadata["stability"] in {"experimental", "alpha", "beta", "stable"}
        (kubeflow_pipelines,) = metadata["dependencies"]["kubeflow"]
        assert kubeflow_pipelines == {"name": "Pipelines", "version": ">=2.17.0"}
        assert all(isinstance(tag, str) for tag in metadata["tags"])
        assert isinstance(metadata["lastVerified"], datetime)


def test_a_parameter_that_is_taken_away_is_missed() -> None:
    component = component_of(next(contract for contract in CONTRACTS if contract.id == "export"))
    whole = written(kubeflow.export)
    for name in whole:
        assert {key: value for key, value in whole.items() if key != name} != declared(component), name


def test_the_public_module_has_every_component_and_no_other() -> None:
    assert sorted(kubeflow.__all__) == sorted(component_of(contract).name for contract in CONTRACTS)


def test_components_load_no_heavy_library() -> None:
    heavy = {"torch", "transformers", "onnxruntime", "datasets", "airflow"}
    code = f"import modelmill.kubeflow, sys; print(sorted(set(sys.modules) & {heavy!r}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_the_image_is_what_the_environment_names(tmp_path: Path) -> None:
    code = "from modelmill import kubeflow; print(kubeflow.gate.component_spec.implementation.container.image)"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={"MODELMILL_IMAGE": "registry.example/modelmill-cpu:1", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == "registry.example/modelmill-cpu:1"
