"""One step anywhere: fetch inputs → run → check → store outputs.

Every orchestrator runs a step through `run_step`, so that a step is keyed, resumed, stored and adopted in one way.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import modelmill
from modelmill.core import durable, history, manifest, records
from modelmill.core.contract import JSON, Closed, Kind, Report, StepContract, directories, scratch_of
from modelmill.core.errors import ModelmillError, OutsideError
from modelmill.core.hardware import Hardware, cpu
from modelmill.core.memory import peak_rss_bytes
from modelmill.core.progress import Bar, Progress
from modelmill.core.stepkey import InputDigests, keyed, package_versions, plain_inputs, step_key
from modelmill.core.store import Scratch, Store
from modelmill.runners.executor import small_facts
from modelmill.targets.registry import machine_of


@dataclass(frozen=True)
class StepResult:
    """What running, or finding, a step gave."""

    key: str
    record: records.StepRecord
    cached: bool
    notes: tuple[str, ...] = ()
    """What was found wrong with a stored output that was then made again."""
    effect: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A step whose settings are resolved and whose key is known."""

    contract: StepContract
    settings: Closed
    inputs: InputDigests
    hardware: Hardware
    packages: Mapping[str, str]
    key: str


def prepare(
    contract: StepContract, settings: Closed, inputs: InputDigests, progress: Progress, store: Store | None = None
) -> Prepared:
    """Resolve the settings, sense what lies in the registry, and make the key. Light: no model library is imported.

    Args:
        contract: The step.
        settings: Its settings.
        inputs: What feeds it; what it senses is added.
        progress: Where to report to.
        store: Where the registry lies; without one nothing is sensed.

    Raises:
        ModelmillError: As the step's ``resolve`` and ``sense`` raise it.
    """
    resolve, sense = contract.load_resolve(), contract.load_sense()
    resolved = resolve(settings, progress) if resolve else settings
    if sense and store is not None:
        resolved, found = sense(store, resolved)
        inputs = {**{name: at for name, at in inputs.items() if name not in _sensed(contract)}, **found}
    runtime = getattr(resolved, "runtime", None)
    hardware = cpu() if runtime is None else machine_of(runtime)
    packages = package_versions(contract.packages_for(resolved))
    key = step_key(contract, resolved, inputs, hardware, packages)
    return Prepared(contract, resolved, inputs, hardware, packages, key)


def _sensed(contract: StepContract) -> set[str]:
    return {port.name for port in contract.sensed_ports}


def find(store: Store, prepared: Prepared) -> tuple[records.StepRecord | None, tuple[str, ...]]:
    """The stored record of a prepared step whose outputs are all whole, and what was found wrong otherwise."""
    record, reasons = records.find(store, prepared.key)
    return record, tuple(reasons)


def run_step(store: Store, prepared: Prepared, progress: Progress) -> StepResult:
    """Find a step's outputs in the store, or make them.

    The outputs become visible under the key at once, when all are stored; of several writers the first wins and the
    others adopt its outputs.

    Raises:
        ModelmillError: As the step raises it; `CorruptArtifactError` where an input's bytes are not its digest's.
        OutsideError: A disk is full.
    """
    record, notes = find(store, prepared)
    cached = record is not None
    with _full_disk_told(prepared.contract):
        if record is None:
            for note in notes:
                progress.fact(note)
            record = _make(store, prepared, progress)
        return StepResult(prepared.key, record, cached, notes, effect_of(store, prepared, record.outputs, progress))


@contextmanager
def _full_disk_told(contract: StepContract) -> Iterator[None]:
    """Say that there is no space for the files that a step writes while it works; the store says so of its own."""
    try:
        yield
    except OSError as error:
        if error.errno not in durable.FULL:
            raise
        what = f"there is no space left for the files that {contract.id} writes"
        fix = "free space there, or let TMPDIR name a folder with more; then run again"
        raise OutsideError(what, where=str(error.filename or tempfile.gettempdir()), fix=fix) from None


def effect_of(store: Store, prepared: Prepared, made: Mapping[str, str], progress: Progress) -> Mapping[str, JSON]:
    """Do what the step does in the store besides its outputs; nothing for most steps.

    Args:
        store: Holds the outputs.
        prepared: The step.
        made: Output port → digest.
        progress: Where to report to.
    """
    effect = prepared.contract.load_effect()
    if effect is None:
        return {}
    outputs = {name: (store.get_artifact(digest, progress), digest) for name, digest in made.items()}
    report: Report = effect(store, outputs, prepared.settings, progress)
    return report.facts


def _make(store: Store, prepared: Prepared, progress: Progress) -> records.StepRecord:
    contract = prepared.contract
    started = time.monotonic()
    inputs = {name: _fetched(store, at, progress) for name, at in prepared.inputs.items()}
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelmill-")))
        found: dict[str, Path | Mapping[str, Path]] = {}
        for port in contract.output_ports:
            path = found[port.name] = work / port.name
            path.mkdir()
        scratch: Scratch | None = None
        for name in scratch_of(contract.outputs):
            scratch = stack.enter_context(store.open_scratch(prepared.key, progress))
            found[name] = scratch.path
        report = contract.load()(
            directories(contract.inputs, inputs),
            directories(contract.outputs, found),
            prepared.settings,
            _Saving(progress, scratch) if scratch else progress,
        )
        digests: dict[str, str] = {}
        for port in contract.output_ports:
            made = made_by(prepared, work / port.name, port.type, report, inputs)
            digests[port.name] = _stored(store, work / port.name, made, progress)
        record = records.StepRecord(
            step=contract.name,
            part=contract.part,
            key=prepared.key,
            kind=contract.kind,
            settings=keyed(prepared.settings),
            inputs=plain_inputs(prepared.inputs),
            packages=dict(prepared.packages),
            hardware=prepared.hardware,
            outputs=digests,
            facts=dict(report.facts),
            seconds=round(time.monotonic() - started, 3),
            peak_rss_bytes=peak_rss_bytes(),
            made_at=records.utc_now(),
            modelmill=modelmill.__version__,
        )
        kept = records.adopt_or_store(store, record)
        if scratch:
            scratch.clear()
        return kept


def _fetched(store: Store, at: str | Mapping[str, str], progress: Progress) -> Path | Mapping[str, Path]:
    if isinstance(at, str):
        return store.get_artifact(at, progress)
    return {name: store.get_artifact(digest, progress) for name, digest in at.items()}


def made_by(
    prepared: Prepared, directory: Path, type: str, report: Report, given: Mapping[str, Path | Mapping[str, Path]]
) -> manifest.Manifest:
    """The manifest of an output that a prepared step wrote into ``directory``, with what made it, from what.

    ``given`` are the directories at its input ports, whose manifests tell what came before.

    Raises:
        ModelmillError: The step wrote nothing there.
    """
    made = manifest.build(directory, type)
    if not made.files:
        what = f"the step {prepared.contract.id} ended without writing its output {directory.name}"
        raise ModelmillError(what, fix="this is a bug of the step: report it")
    # What was sensed is compared with, and is no ancestor: a history that held each night's champion would never end.
    fed = [at for name, at in given.items() if name not in _sensed(prepared.contract)]
    told = history.of(path for at in fed for path in ([at] if isinstance(at, Path) else at.values()))
    entry = history.Made(
        step=prepared.contract.id,
        version=prepared.contract.version,
        settings=keyed(prepared.settings),
        inputs=plain_inputs(prepared.inputs),
        facts=small_facts(report.facts) if prepared.contract.kind is Kind.REPRODUCIBLE else {},
    )
    return made.model_copy(
        update={
            "made_by": {
                "step": prepared.contract.name,
                "part": prepared.contract.part,
                "version": prepared.contract.version,
                "key": prepared.key,
                history.HISTORY: told.and_then(prepared.key, entry).model_dump(mode="json"),
            },
            "made_from": plain_inputs(prepared.inputs),
        }
    )


def _stored(store: Store, directory: Path, made: manifest.Manifest, progress: Progress) -> str:
    store.put_artifact(directory, made, progress)
    shutil.rmtree(directory, ignore_errors=True)
    return made.digest


class _Saving:
    """Progress whose `saved` makes a scratch directory durable."""

    def __init__(self, progress: Progress, scratch: Scratch) -> None:
        self._progress, self._scratch = progress, scratch

    def fact(self, text: str) -> None:
        self._progress.fact(text)

    @contextmanager
    def bar(self, label: str, total: float | None = None, unit: str = "") -> Iterator[Bar]:
        with self._progress.bar(label, total, unit) as bar:
            yield bar

    def saved(self, path: Path) -> None:
        self._scratch.saved(path)
