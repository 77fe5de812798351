"""Lanes and their files: which go into a bundle, where, and the copying of files of any size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelmill.core import bundle as bundles
from modelmill.core.contract import JSON
from modelmill.core.errors import ModelError
from modelmill.core.evidence import TRIALS, LaneEvidence, Searched, Verdict
from modelmill.core.manifest import FileEntry, canonical, copy, relative_files, write_json
from modelmill.core.model import ModelDocument, read_model
from modelmill.core.progress import Progress, SilentBar
from modelmill.serving import repository
from modelmill.steps.publish.contract import Inputs

CARD = "README.md"
REPORT = "report.html"
RECIPE = "recipe.json"
EVIDENCE = "evidence"
VERDICT = "verdict.json"

_OWN = {
    bundles.BUNDLE_DOCUMENT,
    bundles.SIGNATURE,
    bundles.EVIDENCE_DOCUMENT,
    bundles.PROVENANCE,
    bundles.BILL_OF_MATERIALS,
    bundles.CHOICE,
    bundles.SIGNED_PROVENANCE,
    CARD,
    REPORT,
    RECIPE,
}
# transformers.js (src/utils/dtypes.js) → what it calls a graph of that precision.
_BROWSER_GRAPHS = {"float32": "model.onnx", "int8": "model_quantized.onnx"}
# A store keeps every path's bytes. Beyond this a second copy costs more than the line that names the first.
BROWSER_LIMIT_BYTES = 128 << 20

# What a choice rests on may be timings: it says why, not what, and stays outside of the digest.
_WHY = ("reason",)


@dataclass(frozen=True)
class Lane:
    """One lane as publish is given it.

    Attributes:
        target: Its target's name.
        model: The model artifact's directory.
        document: Its model.json.
        choice: Its choice.json.
        evidence: Its verdict.
        trials: Its trials.json; empty where nothing was searched.
    """

    target: str
    model: Path
    document: ModelDocument
    choice: dict[str, JSON]
    evidence: LaneEvidence
    trials: dict[str, JSON] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the gate let it through."""
        return self.evidence.verdict is Verdict.PASS

    @property
    def searched(self) -> Searched | None:
        """What its search tried and found; None: nothing was tried."""
        if not self.trials.get("tried"):
            return None
        return Searched.model_validate(
            {name: self.trials[name] for name in Searched.model_fields if name in self.trials}
        )

    @property
    def applied(self) -> dict[str, JSON]:
        """The choice without its reasons: what the model was made by."""
        return {name: value for name, value in self.choice.items() if name not in _WHY}


def read_lanes(inputs: Inputs, order: Sequence[str]) -> list[Lane]:
    """All lanes, those that ``order`` names first and in its order.

    Raises:
        ModelError: The inputs name different lanes, a verdict is another lane's, or no lane passed.
    """
    named = [set(port) for port in (inputs.models, inputs.choices, inputs.verdicts)]
    partial = {name for names in named for name in names if any(name not in others for others in named)}
    if partial:
        what = f"models, choices and verdicts are not of the same lanes: {', '.join(sorted(partial))}"
        raise ModelError(what, fix="give publish all three of every lane")
    targets = [name for name in order if name in named[0]]
    lanes = []
    for target in (*targets, *(name for name in inputs.models if name not in targets)):
        path = inputs.verdicts[target] / VERDICT
        evidence = LaneEvidence.model_validate_json(path.read_bytes())
        if evidence.target != target:
            what = f"the verdict given for the lane {target} is of the lane {evidence.target}"
            raise ModelError(what, where=str(path), fix="give publish each lane's own verdict")
        choice = json.loads((inputs.choices[target] / bundles.CHOICE).read_bytes())
        searched = inputs.choices[target] / TRIALS
        trials = json.loads(searched.read_bytes()) if searched.is_file() else {}
        model = inputs.models[target]
        lanes.append(Lane(target, model, read_model(model), choice, evidence, trials))
    if not any(lane.passed for lane in lanes):
        what = "no lane passed the gate, so there is nothing to publish"
        raise ModelError(what, where=", ".join(lane.target for lane in lanes), fix="see each lane's report.html")
    return lanes


def place(lanes: Sequence[Lane]) -> dict[str, str]:
    """Target → path in the bundle: the first lane at the root, further ones below lanes/; equal models once."""
    paths: dict[str, str] = {}
    taken: dict[bytes, str] = {}
    for lane in lanes:
        content = canonical([lane.evidence.digests.get("model"), lane.applied])
        taken.setdefault(content, f"{bundles.LANES}/{lane.target}" if taken else ".")
        paths[lane.target] = taken[content]
    return paths


def copy_models(
    directory: Path, lanes: Sequence[Lane], paths: Mapping[str, str], progress: Progress
) -> tuple[dict[str, FileEntry], dict[str, bundles.BundleLane]]:
    """Copy every placed model with its choice, serving files and a graph for browsers: what the digest will cover.

    Raises:
        ModelError: A model is not the one its verdict judged, or has a file where the bundle keeps its own.
    """
    files: dict[str, FileEntry] = {}
    placed: dict[str, bundles.BundleLane] = {}
    owners = {path: lane for lane in reversed(lanes) for path in [paths[lane.target]]}
    total = sum(path.stat().st_size for lane in owners.values() for _, path in relative_files(lane.model))
    with progress.bar("copy models", total, "bytes") as bar:
        for path, lane in sorted(owners.items()):
            prefix = "" if path == "." else f"{path}/"
            for name, source in relative_files(lane.model):
                _refuse_reserved(name, lane)
                files[prefix + name] = copy(source, directory / path / name, bar)
            files[prefix + bundles.CHOICE] = write_document(directory / path / bundles.CHOICE, lane.applied)
    for lane in lanes:
        prefix = "" if paths[lane.target] == "." else f"{paths[lane.target]}/"
        for name, content in serving_files(lane).items():
            files[prefix + name] = write_bytes(directory / paths[lane.target] / name, content)
    graph = browser_graph(lanes[0])
    if graph is not None:
        original, name = graph
        files[name] = copy(lanes[0].model / original, directory / name, SilentBar())
    for lane in lanes:
        path = paths[lane.target]
        model = bundles.model_digest_of(files, path)
        judged = lane.evidence.digests.get("model")
        if model != judged:
            what = f"the verdict of the lane {lane.target} is about the model {judged}, and {model} was given"
            raise ModelError(what, where=str(lane.model), fix="run gate again on this model")
        verdict = f"{EVIDENCE}/{lane.target}/{VERDICT}"
        placed[lane.target] = bundles.BundleLane(path=path, model=model, verdict=verdict)
    return files, placed


def browser_graph(lane: Lane) -> tuple[str, str] | None:
    """(the lane's graph, where transformers.js looks for it); None where there is no one file, or it is too large."""
    components = list(lane.document.components.values())
    name = _BROWSER_GRAPHS.get(lane.document.precision)
    if name is None or len(components) != 1 or components[0].external_data:
        return None
    graph = components[0].file
    if (lane.model / graph).stat().st_size > BROWSER_LIMIT_BYTES:
        return None
    return graph, f"{bundles.BROWSERS}/{name}"


def serving_files(lane: Lane) -> dict[str, bytes]:
    """What a server reads besides the model, by path below the lane's place; nothing where the lane has none.

    Raises:
        ModelError: They are not those that the smoke test tried.
    """
    smoke = lane.evidence.smoke
    if smoke is None or smoke.plan is None:
        return {}
    files = repository.files_of(lane.document, smoke.plan, lane.target)
    if {name: entry_of(content) for name, content in files.items()} != smoke.files:
        what = f"the serving files of the lane {lane.target} are not those that its smoke test was about"
        fix = "run evaluate-smoke and gate again with the modelmill that publishes"
        raise ModelError(what, where=lane.target, fix=fix)
    return files


def write_bytes(path: Path, content: bytes) -> FileEntry:
    """Write a small file, and say what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return entry_of(content)


def write_document(path: Path, document: object) -> FileEntry:
    """Write a JSON document, and say what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, document)
    return entry_of(path.read_bytes())


def write_text(path: Path, text: str) -> FileEntry:
    """Write a text, and say what was written."""
    return write_bytes(path, text.encode())


def entry_of(content: bytes) -> FileEntry:
    """The entry of a small file."""
    return FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def _refuse_reserved(name: str, lane: Lane) -> None:
    if name in _OWN or name.partition("/")[0] in {bundles.LANES, bundles.BROWSERS, bundles.SERVING, EVIDENCE}:
        what = f"the model of the lane {lane.target} has a file {name}, where a bundle keeps its own"
        raise ModelError(what, where=str(lane.model / name), fix="give the file another name in the model artifact")
