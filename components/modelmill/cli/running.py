"""Commands that run: run, step, plan."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from modelmill import recipe as recipes
from modelmill.cli.options import (
    DeploymentOption,
    JsonOption,
    RecipeArgument,
    SetOption,
    StoreOption,
    store_and_deployment,
)
from modelmill.cli.output import megabytes, print_json, print_table, print_text, short
from modelmill.cli.progress import stderr_progress
from modelmill.core.contract import StepContract
from modelmill.core.errors import ModelmillError, UsageError
from modelmill.core.evidence import Against
from modelmill.core.progress import Progress
from modelmill.core.store import Store
from modelmill.line import Job, contract_named
from modelmill.reports.view import unavailable_in_words
from modelmill.runners import airflow_local, kubeflow_local, local, plan, process
from modelmill.runners.containers import SETTINGS_VARIABLE
from modelmill.runners.executor import small_facts
from modelmill.runners.parameters import decoded
from modelmill.runners.result import RunDocument, warnings_of


class Runner(StrEnum):
    """What runs the line."""

    LOCAL = "local"
    KUBEFLOW_LOCAL = "kubeflow-local"
    AIRFLOW_LOCAL = "airflow-local"


_RUNNERS: Mapping[Runner, Callable[[Job, Store, Progress], RunDocument]] = {
    Runner.LOCAL: local.run,
    Runner.KUBEFLOW_LOCAL: kubeflow_local.run,
    Runner.AIRFLOW_LOCAL: airflow_local.run,
}


def run(
    recipe: RecipeArgument,
    store: StoreOption = None,
    runner: Annotated[
        Runner,
        typer.Option("--runner", help="This process, or an orchestrator's own code with containers on this machine."),
    ] = Runner.LOCAL,
    overrides: SetOption = None,
    deployment: DeploymentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe's line; what the store already holds is not done again.

    Exit codes: 0 promoted (or held back by a person's pin), 2 the input is wrong, 3 the gate refused, 4 the gate could
    not decide, 5 something outside failed (safe to run again), 1 a bug; 130 or 143 interrupted, by Ctrl-C or SIGTERM.
    """
    located = recipes.load(recipe, overrides or [])
    opened, deployed = store_and_deployment(store, deployment)
    progress = stderr_progress()
    try:
        with _answering_sigterm():
            document = _RUNNERS[runner](Job(located, deployed), opened, progress)
    except KeyboardInterrupt as problem:
        progress.fact("interrupted; the same command goes on after the last finished step")
        raise typer.Exit(143 if isinstance(problem, _Terminated) else 130) from None
    if as_json:
        print_json(document.model_dump(mode="json", exclude={"format"}))
    else:
        print_run(document)
    raise typer.Exit(document.status.exit_code)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: whoever stops a job, a service or a command that took too long sends it."""


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    # timeout sends it twice, to its child and to the child's group: the second must not break off the clearing up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Terminated


@contextmanager
def _answering_sigterm() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C while the block runs: containers and processes end, and the run says how it ended."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _against(other: Against) -> str:
    """What is said of an opponent: the numbers, or why there are none."""
    if other.value is None or other.drop_points is None or other.drop_points_ci is None:
        return other.words
    low, high = other.drop_points_ci
    return f"{other.value:.4f} is served; drop {other.drop_points:.2f} points [{low:.2f}, {high:.2f}]"


def print_run(document: RunDocument) -> None:
    """A run for people: steps, lanes, and where to look."""
    print_table(
        f"run {document.run} of {document.recipe}: {document.status.value}",
        ["step", "target", "digest", "in store", "seconds", "peak memory"],
        [
            (
                f"{row.name} ({row.part})" if row.part else row.name,
                row.target,
                short(row.digest),
                "yes" if row.cached else "made now",
                f"{row.seconds:.1f}",
                megabytes(row.peak_rss_bytes),
            )
            for row in document.steps
        ],
    )
    for name, lane in document.targets.items():
        print_text("")
        low, high = lane.drop_points_ci
        rows: list[tuple[str, str]] = [
            ("verdict", lane.verdict.value),
            *(("reason", reason) for reason in lane.reasons),
            (lane.metric.name, f"{lane.baseline:.4f} before, {lane.candidate:.4f} after"),
            ("drop", f"{lane.drop_points:.2f} points [{low:.2f}, {high:.2f}]"),
            *((f"against the {name.value}", _against(other)) for name, other in lane.against.items()),
            *(
                (
                    f"batch {cell.batch_size}, length {cell.sequence_length}",
                    f"{cell.baseline_ms_p50:.2f} ms → {cell.candidate_ms_p50:.2f} ms: "
                    f"{cell.speedup:.2f} × [{cell.speedup_ci[0]:.2f}, {cell.speedup_ci[1]:.2f}], "
                    f"{cell.gain_over_unquantized:.2f} × the unquantized model",
                )
                for cell in lane.latency
            ),
            ("size", f"{megabytes(lane.size_bytes)}, {lane.size_ratio:.3f} of the checkpoint"),
            ("measured on", lane.hardware_class),
        ]
        print_table(f"target {name} ({lane.precision})", ["", ""], rows)
    print_text("")
    for name, why in document.unavailable.items():
        print_text(f"note:    {unavailable_in_words(name, why)}")
    for words in warnings_of(document.steps):
        print_text(f"note:    {words}")
    if document.bundle:
        print_text(f"bundle:  {document.bundle}")
        print_text(f"channel: {document.channel or document.held}")
    if document.git:
        print_text(f"git:     {document.git['outcome']} {document.git['pull_request'] or document.git['commit'] or ''}")
    for mirror in document.mirrors:
        print_text(f"mirror:  {mirror['mirror']} is {mirror['state']}: {mirror['words']}")
    if document.report:
        print_text(f"report:  {document.report}")
    print_text(f"time:    {document.seconds:.1f} s")


def _inputs_of(contract: StepContract, pairs: list[str]) -> dict[str, Any]:
    step, ports = contract.id, {port.name: port for port in contract.input_ports}
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, digest = pair.partition("=")
        port, dot, lane = name.partition(".")
        if port not in ports or not equals or ports[port].many is not bool(dot):
            wanted = [f"{item.name}.TARGET" if item.many else item.name for item in ports.values()]
            what = f"{pair!r} gives no input port of {step}"
            raise UsageError(what, where="--input", fix=f"give PORT=DIGEST for: {', '.join(wanted) or 'no port'}")
        digest = digest.rstrip("/").rsplit("/", 1)[-1]
        digest = digest if digest.startswith("sha256:") else f"sha256:{digest}"
        if ports[port].many:
            found.setdefault(port, {})[lane] = digest
        else:
            found[port] = digest
    missing = sorted(set(ports) - set(found))
    if missing:
        what = f"the step {step} needs the input {missing[0]}"
        raise UsageError(what, where="--input", fix=f"give --input {missing[0]}=DIGEST")
    return found


def step(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The step: fetch, evaluate-baseline, …")],
    settings: Annotated[
        Path | None,
        typer.Option("--settings", metavar="FILE", help="The step's settings as JSON.  [default: MODELMILL_SETTINGS]"),
    ] = None,
    store: StoreOption = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="PORT=DIGEST", help="An input's digest or URI; PORT.TARGET=… to merge."),
    ] = None,
    result: Annotated[
        Path | None,
        typer.Option("--result", metavar="FILE", help="Where the result goes.  [default: stdout]"),
    ] = None,
    pointer: Annotated[
        Path | None,
        typer.Option("--pointer", metavar="FILE", help="Where the outputs' digests and small facts go, as JSON."),
    ] = None,
    lifeline: Annotated[int | None, typer.Option("--lifeline", hidden=True)] = None,
) -> None:
    """Run one step in its container form: inputs and outputs are in the store, settings in a file."""
    if lifeline is not None:
        process.end_with_parent(lifeline)
    progress = stderr_progress(f"{name}: ")
    outcome: process.StepOutcome
    error: ModelmillError | None = None
    try:
        digests = _inputs_of(contract_named(name, "NAME"), inputs or [])
        opened, _ = store_and_deployment(store)
        outcome = process.run_here(process.StepCommand(name, opened.uri, _read_settings(settings), digests), progress)
    except ModelmillError as problem:
        error = problem
        outcome = process.StepOutcome(error=process.error_document(problem))
    if pointer is not None and outcome.record is not None:
        facts = small_facts({**outcome.record.facts, **outcome.effect})
        told = json.dumps({**outcome.record.outputs, "key": outcome.key, "facts": facts})
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.write_text(told, "utf-8")
        print_text(told)
    if result is not None:
        result.write_text(outcome.model_dump_json(), "utf-8")
        if error is not None and lifeline is not None:
            # The parent reads the error from the result and says it once.
            raise typer.Exit(error.exit_code)
    elif error is None and pointer is None:
        print_json(outcome.model_dump(mode="json", exclude={"error"}))
    if error is not None:
        raise error


def _read_settings(path: Path | None) -> dict[str, Any]:
    if path is None:
        text = os.environ.get(SETTINGS_VARIABLE)
        if text is None:
            what = "the step has no settings"
            raise UsageError(what, where="--settings", fix="give --settings a JSON file")
        return decoded(text, SETTINGS_VARIABLE)
    try:
        value = json.loads(path.read_bytes())
    except OSError as problem:
        what = f"the settings can't be read: {problem.strerror}"
        raise UsageError(what, where=str(path), fix="give --settings a JSON file") from None
    except ValueError as problem:
        what = f"the settings are not JSON: {problem}"
        raise UsageError(what, where=str(path), fix="give --settings a JSON file") from None
    if not isinstance(value, dict):
        what = "the settings are no JSON mapping"
        raise UsageError(what, where=str(path), fix='write them as {"field": value}')
    return value


def show_plan(
    recipe: RecipeArgument,
    store: StoreOption = None,
    overrides: SetOption = None,
    deployment: DeploymentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run would do: its tasks by lane, and which are in the store already."""
    located = recipes.load(recipe, overrides or [])
    opened, deployed = store_and_deployment(store, deployment)
    planned = plan.plan(Job(located, deployed), opened, stderr_progress())
    if as_json:
        print_json(planned.model_dump(mode="json"))
        return
    print_table(
        f"plan of {located.recipe.name} in {opened.uri}",
        ["task", "target", "device", "step key", "in store"],
        [(task.id, task.target, task.device, short(task.key), task.state.value) for task in planned.tasks],
    )


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
    app.command()(step)
    app.command("plan")(show_plan)
