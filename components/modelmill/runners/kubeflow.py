"""The line as a Kubeflow pipeline: a binding of `modelmill.runners.containers` to kfp 2.

kfp is imported where the pipeline is made, so that everything else loads without it.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmill.core.errors import UsageError
from modelmill.runners.containers import (
    DECIDE,
    Argument,
    Container,
    Described,
    Given,
    Part,
    Pointer,
    PointerFile,
    RunName,
)

POINTER = "pointer"
"""The output parameter of every task."""
JOB_NAME = "{{$.pipeline_job_name}}"
_TYPES: Mapping[str, type] = {"string": str, "integer": int, "number": float, "boolean": bool}
_NAMES = {"string": "String", "integer": "Integer", "number": "Float", "boolean": "Boolean"}


def compile_to(described: Described, path: Path) -> None:
    """Compile a line into a pipeline package.

    Args:
        described: The line.
        path: The file to write; ``.yaml``.

    Raises:
        UsageError: kfp is not installed, or the file's name does not end in .yaml.
    """
    if path.suffix not in {".yaml", ".yml"}:
        what = f"{path.name} does not end in .yaml, which is what a pipeline is"
        raise UsageError(what, where="--output", fix=f"write to {path.with_suffix('.yaml')}")
    kfp = _kfp()
    path.parent.mkdir(parents=True, exist_ok=True)
    kfp.compiler.Compiler().compile(pipeline_func=pipeline_of(described), package_path=str(path))


def _kfp() -> Any:
    try:
        import kfp
        import kfp.compiler
        import kfp.kubernetes
    except ImportError as problem:
        what = f"compiling a pipeline needs kfp, which is not installed here ({problem.name})"
        fix = "pip install 'modelmill[kubeflow]' in an environment without Airflow's Kubernetes provider"
        raise UsageError(what, fix=fix) from None
    return kfp


def pipeline_of(described: Described) -> Any:
    """The pipeline, for a pipeline of your own to call or for a client to submit."""
    kfp = _kfp()
    dsl = kfp.dsl
    kinds = {item.name: _NAMES[item.type] for item in described.parameters}

    def body(*values: Any) -> None:
        given = dict(zip(kinds, values, strict=True))
        finish = next(item for item in described.containers if item.always)
        with dsl.ExitHandler(_task(kfp, finish, {}, given, kinds)):
            made: dict[str, Any] = {}
            for container in described.containers:
                if container.always:
                    continue
                if container.only_if_promoted:
                    with dsl.If(made[DECIDE].outputs[POINTER] == "pass", name="promoted"):
                        made[container.id] = _task(kfp, container, made, given, kinds)
                else:
                    made[container.id] = _task(kfp, container, made, given, kinds)

    body.__name__ = described.name
    body.__doc__ = f"{described.summary}.\n\nArgs:\n" + "\n".join(
        f"    {item.name}: {item.description or item.path}" for item in described.parameters
    )
    body.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                item.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=item.default, annotation=_TYPES[item.type]
            )
            for item in described.parameters
        ]
    )
    body.__annotations__ = {item.name: _TYPES[item.type] for item in described.parameters}
    return dsl.pipeline(name=_pipeline_name(described.name), description=described.summary)(body)


def _pipeline_name(name: str) -> str:
    return name.replace(".", "-").replace("_", "-")


def _task(
    kfp: Any, container: Container, made: Mapping[str, Any], given: Mapping[str, Any], kinds: Mapping[str, str]
) -> Any:
    component = _loaded(json.dumps(_component(container, kinds)))
    inputs: dict[str, Any] = {}
    for part in _parts(container):
        if isinstance(part, Pointer):
            inputs[_input(part)] = made[part.task].outputs[POINTER]
        elif isinstance(part, Given):
            inputs[_input(part)] = given[part.parameter]
    # What it waits for is what it is given, and the decision, for which the condition around it waits.
    return _placed(kfp, component(**inputs), container)


@functools.lru_cache(maxsize=256)
def _loaded(component: str) -> Any:
    """The component of a specification (JSON is YAML). kfp takes most of a compilation's time to parse them."""
    return _kfp().components.load_component_from_text(component)


def _parts(container: Container) -> list[Part]:
    return [part for argument in container.arguments for part in argument]


def _input(part: Given | Pointer) -> str:
    name = part.parameter if isinstance(part, Given) else part.task
    return name.replace("-", "_").replace(".", "_")


def _component(container: Container, kinds: Mapping[str, str]) -> dict[str, Any]:
    """The component specification (kfp's YAML form, which both of its generations load)."""
    inputs: dict[str, str] = {}
    for part in _parts(container):
        if isinstance(part, Given | Pointer):
            inputs[_input(part)] = kinds[part.parameter] if isinstance(part, Given) else "String"
    return {
        "name": container.id,
        "description": container.title,
        **({"inputs": [{"name": name, "type": kind} for name, kind in inputs.items()]} if inputs else {}),
        "outputs": [{"name": POINTER, "type": "String"}],
        "implementation": {
            "container": {
                "image": container.image,
                "command": [_argument(argument) for argument in container.arguments],
            }
        },
    }


def _argument(argument: Argument) -> Any:
    rendered = [_part(part) for part in argument]
    return rendered[0] if len(rendered) == 1 else {"concat": rendered}


def _part(part: Part) -> Any:
    if isinstance(part, str):
        return part
    if isinstance(part, RunName):
        return JOB_NAME
    if isinstance(part, PointerFile):
        return {"outputPath": POINTER}
    return {"inputValue": _input(part)}


def _placed(kfp: Any, task: Any, container: Container) -> Any:
    """Where and how the task runs."""
    kubernetes = kfp.kubernetes
    task.set_display_name(container.id)
    # The step key decides what is done again, and looks whether the outputs are still there.
    task.set_caching_options(enable_caching=False)
    resources = container.resources
    task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
    task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if container.accelerators:
        task.set_accelerator_type(container.pool.accelerator).set_accelerator_limit(container.accelerators)
    for name, value in sorted(container.env.items()):
        task.set_env_variable(name, value)
    if not container.always:
        task.set_retry(
            num_retries=container.retries, backoff_duration=f"{container.retry_seconds}s", backoff_factor=2.0
        )
    for label, value in sorted(container.labels.items()):
        kubernetes.add_pod_label(task, label_key=label, label_value=value)
    for label, value in sorted(container.pool.node_selector.items()):
        kubernetes.add_node_selector(task, label_key=label, label_value=value)
    for toleration in container.pool.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))
    for secret in container.secrets:
        kubernetes.use_secret_as_env(task, secret_name=secret.secret, secret_key_to_env={secret.key: secret.name})
    kubernetes.set_image_pull_policy(task, container.pull_policy)
    kubernetes.set_timeout(task, 60 * container.timeout_minutes)
    return task
