"""Kubeflow's backend as far as a compiled line needs it: runs a pipeline package, each command in this process.

It fills in what the backend does and nothing else, which is less than kfp's local runner does: of a task's inputs a
constant that is one placeholder as a whole (backend/src/v2/driver/resolve.go), of a command the executor input and the
placeholders of inputs and outputs (backend/src/v2/component/launcher_v2.go, compileCmdAndArgs). Executor inputs are
made, and executor outputs are read, by kfp's own code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.local.executor_input_utils import construct_executor_input
from kfp.local.executor_output_utils import get_outputs_from_executor_output, load_executor_output
from kfp.pipeline_spec import pipeline_spec_pb2
from typer.testing import CliRunner

from modelmill.cli.main import app

_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\] == '([^']+)'")


@dataclass
class Ran:
    """What became of a run: each task's outputs by name (artifacts as kfp's classes), or what it failed with."""

    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass
class Backend:
    """One run of a package.

    Attributes:
        spec: The package's first document.
        folder: For files of outputs.
        run: The run's id.
    """

    spec: dict[str, Any]
    folder: Path
    run: str
    ran: Ran = field(default_factory=Ran)

    def dag(self, component: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Run a component's tasks, each after those that it waits for; the exit task last."""
        tasks: dict[str, Any] = dict(component["dag"]["tasks"])
        last = {name: task for name, task in tasks.items() if "strategy" in task.get("triggerPolicy", {})}
        waiting = {name: task for name, task in tasks.items() if name not in last}
        ended: set[str] = set()
        while waiting:
            ready = [name for name, task in waiting.items() if set(task.get("dependentTasks", [])) <= ended]
            assert ready, f"these tasks wait for ever: {sorted(waiting)}"
            for name in ready:
                if self.task(name, waiting.pop(name), given):
                    ended.add(name)
            if self.ran.errors:
                break
        for name, task in last.items():
            self.task(name, task, given)

    def task(self, name: str, task: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
        """Run one task; whether it ended well."""
        inputs = {
            key: self._value(source, given) for key, source in task.get("inputs", {}).get("parameters", {}).items()
        }
        component = self.spec["components"][task["componentRef"]["name"]]
        condition = task.get("triggerPolicy", {}).get("condition")
        if condition is not None:
            match = _CONDITION.fullmatch(condition)
            assert match, condition
            if inputs[match[1]] != match[2]:
                return True
        if "dag" in component:
            self.dag(component, inputs)
            return not self.ran.errors
        return self._execute(name, component, inputs)

    def _value(self, source: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        if "componentInputParameter" in source:
            return given[source["componentInputParameter"]]
        if "taskOutputParameter" in source:
            output = source["taskOutputParameter"]
            return self.ran.outputs[output["producerTask"]][output["outputParameterKey"]]
        constant = source["runtimeValue"]["constant"]
        return self.run if constant == "{{$.pipeline_job_uuid}}" else constant

    def _execute(self, name: str, described: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
        component = json_format.ParseDict(described, pipeline_spec_pb2.ComponentSpec())
        container = self.spec["deploymentSpec"]["executors"][described["executorLabel"]]["container"]
        root = self.folder / name
        told = construct_executor_input(component, dict(inputs), str(root), block_input_artifact=True)
        command = self.ran.commands[name] = _filled(container["command"], told)
        assert command[0] == "modelmill"
        with pytest.MonkeyPatch.context() as patched:
            for item in container.get("env", []):
                patched.setenv(item["name"], item["value"])
            result = CliRunner().invoke(app, command[1:])
        if result.exception is not None:
            self.ran.errors[name] = str(result.exception)
            return False
        output = load_executor_output(told.outputs.output_file)
        self.ran.outputs[name] = get_outputs_from_executor_output(output, told, component)
        return True


def _filled(command: list[str], told: Any) -> list[str]:
    document = json_format.MessageToDict(told)
    texts = {"{{$}}": json.dumps(document)}
    for name, value in document.get("inputs", {}).get("parameterValues", {}).items():
        texts[f"{{{{$.inputs.parameters['{name}']}}}}"] = value if isinstance(value, str) else json.dumps(value)
    for name, output in document["outputs"].get("parameters", {}).items():
        texts[f"{{{{$.outputs.parameters['{name}'].output_file}}}}"] = output["outputFile"]
    filled = []
    for text in command:
        for placeholder, value in texts.items():
            text = text.replace(placeholder, value)
        filled.append(text)
    return filled


def run_package(package: Path, folder: Path, run: str, parameters: Mapping[str, Any] | None = None) -> Ran:
    """Run a package with some of its parameters set.

    Args:
        package: A compiled pipeline.
        folder: For files of outputs.
        run: The run's id.
        parameters: Over the defaults.
    """
    (spec, *_) = yaml.safe_load_all(package.read_text("utf-8"))
    declared = spec["root"]["inputDefinitions"]["parameters"]
    defaults = {name: item["defaultValue"] for name, item in declared.items()}
    backend = Backend(spec, folder, run)
    backend.dag(spec["root"], {**defaults, **(parameters or {})})
    return backend.ran
