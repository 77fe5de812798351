"""One step on directories that somebody else's pipeline carries: no store, no recipe, nothing found again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelmill.core import manifest
from modelmill.core.contract import JSON, SENSED, Closed, Port, PortType, Report, directories, scratch_of
from modelmill.core.errors import UsageError
from modelmill.core.evidence import LaneEvidence
from modelmill.core.progress import Progress
from modelmill.core.store import Store
from modelmill.runners.components import Component, settings_of
from modelmill.runners.container import Prepared, effect_of, made_by, prepare
from modelmill.runners.given import digest_of_given

REPORT = "report.html"


@dataclass(frozen=True)
class Made:
    """What a step made.

    Attributes:
        key: The step key, as a store would have it.
        digests: Output port → digest.
        facts: What the step found, and for publish what it did in the store.
    """

    key: str
    digests: Mapping[str, str]
    facts: Mapping[str, JSON]


def run_component(
    component: Component,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    parameters: Mapping[str, JSON],
    store: Store | None,
    progress: Progress,
) -> Made:
    """Run a step on directories.

    Args:
        component: The step.
        inputs: Artifact name → its directory.
        outputs: Artifact name → where it is to lie; nothing may lie there yet. One that is left out is not kept. An
            HTML artifact is one file.
        parameters: Parameter name → value.
        store: Where publish writes, and where what is served lies; None for a step that needs neither.
        progress: Where to report to.

    Raises:
        UsageError: A name is wrong or missing, or an output is there already.
        InputError: An input is not what the step takes.
        ModelmillError: As the step raises it.
    """
    _check_names("input", inputs, {item.name for item in component.inputs})
    settings = settings_of(component, parameters)
    known = {item.name: item.port for item in component.outputs if item.port}
    _check_names("output", outputs, set(known), missing=False)
    _check_store(component, settings, store)
    for name, path in outputs.items():
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            what = f"the output {name} is there already"
            raise UsageError(what, where=str(path), fix="name a path where nothing lies")
    contract = component.contract
    ports = {port.name: port for port in contract.input_ports}
    digests = {name: digest_of_given(ports[name], path) for name, path in inputs.items()}
    lane = _lane(ports, inputs)
    keyed = {name: {lane: at} if ports[name].many else at for name, at in digests.items()}
    prepared = prepare(contract, settings, keyed, progress, store)
    with ExitStack() as stack:
        beside = next(iter(outputs.values())).parent if outputs else None
        work = stack.enter_context(_workplace(beside))
        found = {port.name: work / port.name for port in contract.output_ports}
        scratch = {name: work / name for name in scratch_of(contract.outputs)}
        for path in (*found.values(), *scratch.values()):
            path.mkdir()
        given: dict[str, Path | Mapping[str, Path]] = {
            name: {lane: path} if ports[name].many else path for name, path in inputs.items()
        }
        for port in contract.sensed_ports:
            if store and port.name in prepared.inputs:
                given[port.name] = store.get_artifact(str(prepared.inputs[port.name]), progress)
        report = contract.load()(
            directories(contract.inputs, given),
            directories(contract.outputs, {**found, **scratch}),
            prepared.settings,
            progress,
        )
        made = {port.name: _sealed(prepared, port, found[port.name], report, given) for port in contract.output_ports}
        facts = {
            **report.facts,
            **(_effect(store, prepared, found, made, progress) if store and contract.effect else {}),
        }
        for name, path in outputs.items():
            _place(found[known[name] or ""], path, html=_is_html(component, name))
    return Made(prepared.key, {name: item.digest for name, item in made.items()}, facts)


def _check_store(component: Component, settings: Closed, store: Store | None) -> None:
    """Check that a store is given where the step needs one, and no other.

    Raises:
        UsageError: It is not.
    """
    contract = component.contract
    needed = contract.effect is not None or (contract.sense is not None and getattr(settings, SENSED) is not None)
    if store is None and needed:
        what = f"the step {contract.id} needs a store"
        raise UsageError(what, where="--store", fix="give --store s3://BUCKET/PREFIX")
    if store is not None and not needed:
        uses = f"uses a store only with the parameter {SENSED}" if contract.sense else "writes no store"
        what = f"the step {contract.id} {uses}"
        raise UsageError(what, where="--store", fix="leave it out")


@contextmanager
def _workplace(beside: Path | None) -> Iterator[Path]:
    """A folder to work in, beside the outputs, so that each appears whole by one rename."""
    try:
        if beside:
            beside.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".modelmill-", dir=beside)
    except OSError as problem:
        what = f"no output can be made in {beside or tempfile.gettempdir()}: {problem.strerror}"
        raise UsageError(what, where="--output", fix="name a path in a folder that you may write to") from None
    with folder as name:
        yield Path(name)


def _is_html(component: Component, name: str) -> bool:
    """Whether an output is one file, which a pipeline's page shows."""
    return any(item.name == name and item.type == "HTML" for item in component.outputs)


def _check_names(kind: str, given: Mapping[str, Path], known: set[str], *, missing: bool = True) -> None:
    wrong = [*(set(given) - known), *(known - set(given) if missing else ())]
    if wrong:
        what = f"the step {'has no' if wrong[0] in given else 'needs the'} {kind} {wrong[0]}"
        raise UsageError(what, where=f"--{kind}", fix=f"give {kind}s for: {', '.join(sorted(known)) or 'none'}")


def _lane(ports: Mapping[str, Port], inputs: Mapping[str, Path]) -> str:
    """The name of the lane that a merge port is given: its verdict says."""
    for name, path in inputs.items():
        if ports[name].many and ports[name].type is PortType.VERDICT:
            document = path / "verdict.json"
            return LaneEvidence.model_validate_json(document.read_bytes()).target
    return ""


def _sealed(
    prepared: Prepared, port: Port, directory: Path, report: Report, given: Mapping[str, Path | Mapping[str, Path]]
) -> manifest.Manifest:
    made = made_by(prepared, directory, port.type, report, given)
    manifest.write_json(directory / manifest.MANIFEST, made.model_dump(mode="json"))
    return made


def _effect(
    store: Store,
    prepared: Prepared,
    found: Mapping[str, Path],
    made: Mapping[str, manifest.Manifest],
    progress: Progress,
) -> Mapping[str, JSON]:
    for name, item in made.items():
        store.put_artifact(found[name], item, progress)
    return effect_of(store, prepared, {name: item.digest for name, item in made.items()}, progress)


def _place(source: Path, path: Path, *, html: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if html:
        shutil.move(source / REPORT, path)
        return
    if path.is_dir():
        path.rmdir()
    shutil.move(source, path)
