"""``bom.cdx.json``: the bundle as a CycloneDX 1.6 bill of materials, with model card and the packages that made it.

One document for both: the model is its main component, with what an ML-BOM tells; its other components are the lanes'
files, the sources and every package of the environments in which the steps ran.
Source: cyclonedx.org/docs/1.6/json.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

import modelmill
from modelmill.core.contract import JSON
from modelmill.core.evidence import LaneEvidence
from modelmill.core.history import History
from modelmill.core.manifest import FileEntry
from modelmill.steps.publish.assemble import Lane
from modelmill.steps.publish.contract import Settings
from modelmill.steps.publish.provenance import licence_of

SPECIFICATION = "1.6"
MODEL_REFERENCE = "model"
_NAMESPACE = uuid.UUID("5d0c4a36-5a7c-5c8e-9a55-9d2f0d1c7c11")


def bill_of_materials(
    settings: Settings,
    digest: str,
    lanes: Sequence[Lane],
    paths: Mapping[str, str],
    files: Mapping[str, FileEntry],
    history: History,
) -> dict[str, object]:
    """The document; it names no time, so that the same bundle made from the same has the same.

    Args:
        settings: The step's.
        digest: The bundle's.
        lanes: The passed lanes, the one at the root first.
        paths: Target → where its model lies.
        files: What the digest covers.
        history: What is known of the steps before.
    """
    packages = _packages(history)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": MODEL_REFERENCE,
                "name": settings.model,
                "version": digest,
                "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
                "licenses": [{"license": {"name": licence_of(history) or "unknown"}}],
                "modelCard": _model_card(settings, lanes),
            },
            "tools": {
                "components": [{"type": "application", "name": "modelmill", "version": modelmill.__version__}],
            },
        },
        "components": [
            *(_lane(lane, paths[lane.target]) for lane in lanes),
            *(_file(name, entry) for name, entry in sorted(files.items())),
            *(_package(name, version, used) for (name, version), used in packages.items()),
        ],
        "dependencies": [
            {
                "ref": MODEL_REFERENCE,
                "dependsOn": sorted({_purl(name, version) for name, version in packages}),
            }
        ],
    }


def _model_card(settings: Settings, lanes: Sequence[Lane]) -> dict[str, object]:
    document = lanes[0].document
    dataset = {"type": "dataset", "name": settings.told("data", "source") or "not told"}
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": document.task,
            "architectureFamily": "transformer",
            "modelArchitecture": document.architecture,
            "datasets": [dataset],
            "inputs": [{"format": "text" if "tokenizer" in document.processors else "tensor"}],
            "outputs": [{"format": "label with score" if document.labels else "tensor"}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [metric for lane in lanes for metric in _metrics(lane.evidence)],
        },
        "considerations": {
            "technicalLimitations": [
                "The metric is of the evaluation rows alone.",
                "Speed is of the hardware class that was measured.",
            ]
        },
    }


def _metrics(evidence: LaneEvidence) -> list[dict[str, object]]:
    where = f"{evidence.target}, {evidence.precision}, {evidence.rows} evaluation rows"
    found = [_metric(evidence.metric.name, evidence.candidate, evidence.candidate_ci, where)]
    hardware = evidence.measurements.hardware_class
    for cell in evidence.measurements.latency:
        shape = f"{evidence.target}, batch {cell.batch_size}, length {cell.sequence_length}, {hardware}"
        found.append(_metric("speed-up over PyTorch", cell.speedup, cell.speedup_ci, shape))
    return found


def _metric(name: str, value: float, interval: tuple[float, float], where: str) -> dict[str, object]:
    lower, upper = interval
    bounds = {"lowerBound": f"{lower:.6g}", "upperBound": f"{upper:.6g}"}
    return {"type": name, "value": f"{value:.6g}", "slice": where, "confidenceInterval": bounds}


def _lane(lane: Lane, path: str) -> dict[str, object]:
    digest = str(lane.evidence.digests.get("model", ""))
    return {
        "type": "machine-learning-model",
        "bom-ref": f"lane:{lane.target}",
        "name": lane.target,
        "version": digest,
        "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
        "properties": _properties({"path": path, "precision": lane.document.precision}),
    }


def _file(name: str, entry: FileEntry) -> dict[str, object]:
    hashes = [{"alg": "SHA-256", "content": entry.sha256}]
    return {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": hashes}


def _packages(history: History) -> dict[tuple[str, str], list[str]]:
    """(package, version) → the steps in whose environment it was, in order of the names."""
    found: dict[tuple[str, str], set[str]] = {}
    for made in history.steps.values():
        for item in history.environments.get(made.environment or "", {}).items():
            found.setdefault(item, set()).add(made.step)
    return {item: sorted(found[item]) for item in sorted(found)}


def _package(name: str, version: str, steps: Sequence[str]) -> dict[str, object]:
    purl = _purl(name, version)
    used = {"steps": ", ".join(steps)}
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "properties": _properties(used),
    }


def _purl(name: str, version: str) -> str:
    """Source: package-url/purl-spec, PURL-TYPES, pypi; of a version only ``+`` needs encoding."""
    return f"pkg:pypi/{name}@{version.replace('+', '%2B')}"


def _properties(values: Mapping[str, JSON]) -> list[dict[str, JSON]]:
    return [{"name": f"modelmill:{name}", "value": str(value)} for name, value in values.items()]
