"""The line as a Kubeflow pipeline: a binding of `modelmill.runners.containers` to kfp 2.

kfp is imported where the pipeline is made, so that everything else loads without it.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from modelmill.core.errors import DeploymentError, UsageError
from modelmill.runners.containers import (
    DECIDE,
    WRITABLE,
    Container,
    Described,
    Given,
    Part,
    Pointer,
    PointerFile,
    RunName,
    Shown,
    ShowPlace,
)
from modelmill.runners.parameters import PLACEHOLDER

POINTER = "Output"
"""The output parameter of every task. It is kfp's own name for a single output, and the one that its local runner finds
in a condition: any other made it skip the branch and call the run a success (kfp 2.17)."""
RUN_ID = "{{$.pipeline_job_uuid}}"
"""The id in the address of a run's page. A run's name is what its starter called it, and two may be called the same."""
EXECUTOR_INPUT = "{{$}}"
"""What the backend tells a container of itself: where its output artifacts go."""
RUN = "run"
"""The input that takes it: the backend fills it into a task's inputs alone (driver/resolve.go), not into commands."""
Input = Given | Pointer | RunName
"""What of a container's arguments is a task's input."""
SHOWN = {
    Shown.METRICS: "system.Metrics",
    Shown.CONFUSION: "system.ClassificationMetrics",
    Shown.REPORT: "system.HTML",
}
"""What is shown → the type of the output artifact, which decides what its page looks like."""
_TYPES: Mapping[str, type] = {"string": str, "integer": int, "number": float, "boolean": bool}
_NAMES = {"string": "STRING", "integer": "NUMBER_INTEGER", "number": "NUMBER_DOUBLE", "boolean": "BOOLEAN"}


def compile_to(described: Described, path: Path) -> None:
    """Compile a line into a pipeline package.

    Args:
        described: The line.
        path: The file to write; ``.yaml``.

    Raises:
        DeploymentError: The store's name holds a placeholder of Kubeflow's.
        UsageError: kfp is not installed, the file's name does not end in .yaml, or it cannot be written.
    """
    if path.suffix not in {".yaml", ".yml"}:
        what = f"{path.name} does not end in .yaml, which is what a pipeline is"
        raise UsageError(what, where="--output", fix=f"write to {path.with_suffix('.yaml')}")
    package = compiled(described)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(package)
    except OSError as problem:
        what = f"{path} cannot be written: {problem.strerror}"
        raise UsageError(what, where="--output", fix="name a file in a folder that you may write to") from None


def compiled(described: Described) -> bytes:
    """A line as a pipeline package.

    Raises:
        UsageError: kfp is not installed.
    """
    kfp = library()

    def write(path: Path) -> bytes:
        kfp.compiler.Compiler().compile(pipeline_func=pipeline_of(described), package_path=str(path))
        return path.read_bytes()

    # For each setting of each task kfp reads the source of all its callers, and a thread's first function has none.
    with tempfile.TemporaryDirectory(prefix="modelmill-") as folder, ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(write, Path(folder) / "pipeline.yaml").result()


def library() -> Any:
    """The module ``kfp`` with its client, compiler, local runner and extension for Kubernetes.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import kfp
        import kfp.client
        import kfp.compiler
        import kfp.kubernetes
        import kfp.local
    except ImportError as problem:
        what = f"compiling a pipeline needs kfp, which is not installed here ({problem.name})"
        fix = "pip install 'modelmill[kubeflow]' in an environment without Airflow's Kubernetes provider"
        raise UsageError(what, fix=fix) from None
    return kfp


def pipeline_of(described: Described) -> Any:
    """The pipeline, for a pipeline of your own to call or for a client to submit."""
    kfp = library()
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
    return dsl.pipeline(name=pipeline_name(described.name), description=described.summary)(body)


def pipeline_name(name: str) -> str:
    """A recipe's name as Kubeflow takes it: letters, digits and hyphens."""
    return name.replace(".", "-").replace("_", "-")


def _task(
    kfp: Any, container: Container, made: Mapping[str, Any], given: Mapping[str, Any], kinds: Mapping[str, str]
) -> Any:
    component = _loaded(json.dumps(_component(container, kinds)))

    def value(part: Input) -> Any:
        match part:
            case Given(parameter):
                return given[parameter]
            case Pointer(task):
                return made[task].outputs[POINTER]
            case RunName():
                return RUN_ID

    # What it waits for is what it is given, and the decision, for which the condition around it waits.
    return _placed(kfp, component(**{name: value(part) for part, name in _inputs(container).items()}), container)


@functools.lru_cache(maxsize=256)
def _loaded(component: str) -> Any:
    """The component of a specification (JSON is YAML). kfp takes most of a compilation's time to parse them."""
    return library().components.load_component_from_text(component)


def _inputs(container: Container) -> dict[Input, str]:
    """What a task is given, and the names of the inputs that take it."""
    names: dict[Input, str] = {}
    for argument in container.arguments:
        for part in argument:
            if isinstance(part, Given | Pointer | RunName) and part not in names:
                name = _word(part)
                # Targets that differ in punctuation alone come to one word.
                names[part] = f"{name}_{len(names)}" if name in names.values() else name
    return names


def _word(part: Input) -> str:
    match part:
        case Given(parameter):
            return parameter
        case Pointer(task):
            return task.replace("-", "_").replace(".", "_")
        case RunName():
            return RUN


def _component(container: Container, kinds: Mapping[str, str]) -> dict[str, Any]:
    """A pipeline of this one task, which is what kfp's second generation calls a component.

    The first generation's form is simpler, and its loader writes every output's name in small letters.
    """
    names = _inputs(container)
    # As kfp writes it: it looks for the component under this name, and takes an empty one where there is none.
    word = re.sub("[^a-z0-9]+", "-", container.id)
    inputs = {name: kinds[part.parameter] if isinstance(part, Given) else "STRING" for part, name in names.items()}
    shown = {
        kind.value: {"artifactType": {"schemaTitle": SHOWN[kind], "schemaVersion": "0.0.1"}} for kind in container.shows
    }
    outputs = {"parameters": {POINTER: {"parameterType": "STRING"}}, **({"artifacts": shown} if shown else {})}
    definitions = {
        "inputDefinitions": {"parameters": {name: {"parameterType": kind} for name, kind in inputs.items()}},
        "outputDefinitions": outputs,
    }
    command = ["".join(_text(part, names) for part in argument) for argument in container.arguments]
    executor = {"image": container.image, "command": command}
    return {
        "pipelineInfo": {"name": word},
        "schemaVersion": "2.1.0",
        "components": {f"comp-{word}": {"executorLabel": f"exec-{word}", **definitions}},
        "deploymentSpec": {"executors": {f"exec-{word}": {"container": executor}}},
        "root": {"dag": {"tasks": {}}},
    }


def _text(part: Part, names: Mapping[Input, str]) -> str:
    # kfp's own form for parts that stand together, `concat`, reaches a container as its JSON text: the backend only
    # replaces placeholders in texts (kubeflow/pipelines#9486; component/launcher_v2.go, compileCmdAndArgs).
    match part:
        case str():
            if PLACEHOLDER in part:
                what = f"Kubeflow would take {PLACEHOLDER} in {part!r} for a placeholder of its own"
                raise DeploymentError(what, where="deployment", fix="give it a name without these signs")
            return part
        case PointerFile():
            return f"{{{{$.outputs.parameters['{POINTER}'].output_file}}}}"
        case ShowPlace():
            return EXECUTOR_INPUT
        case _:
            return f"{{{{$.inputs.parameters['{names[part]}']}}}}"


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
    if container.retries and not container.always:
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
    # kfp has no words for the rest: its backend drops capabilities and privilege escalation for every task, and sets
    # the seccomp profile; a read-only root file system it cannot set.
    kubernetes.set_security_context(task, run_as_non_root=True)
    for name, path in WRITABLE.items():
        kubernetes.empty_dir_mount(task, volume_name=name, mount_path=path)
    return task
