"""``provenance.json``: what a bundle was made from, by which steps, as SLSA provenance in an in-toto statement.

Sources: slsa.dev/spec/v1.0/provenance; in-toto/attestation, spec/v1/statement.md and digest_set.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import modelmill
from modelmill.core.bundle import PROVENANCE
from modelmill.core.contract import JSON
from modelmill.core.history import History, Made
from modelmill.core.manifest import FileEntry
from modelmill.core.signature import STATEMENT
from modelmill.steps.publish.contract import Settings

PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:modelmill:line:v1"
BUILDER = "urn:modelmill:publish:v1"
FETCH = "fetch"

_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def statement(
    settings: Settings,
    digest: str,
    files: Mapping[str, FileEntry],
    evidence: Mapping[str, FileEntry],
    history: History,
) -> dict[str, object]:
    """The statement.

    Args:
        settings: The step's; the recipe in them is what was asked for.
        digest: The bundle's: the first subject.
        files: What the digest covers: the further subjects.
        evidence: What is bound to it so far.
        history: What is known of the steps before.
    """
    subjects = [{"name": settings.model, "digest": _sha256(digest)}]
    subjects += [{"name": name, "digest": {"sha256": entry.sha256}} for name, entry in sorted(files.items())]
    parameters = {"model": settings.model, "channel": settings.channel, "recipe": settings.recipe}
    return {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "internalParameters": {"steps": {key: _step(made) for key, made in history.steps.items()}},
                "resolvedDependencies": [*_sources(settings, history), *_artifacts(history), *_images(history)],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"modelmill": modelmill.__version__}},
                "metadata": {"invocationId": settings.run} if settings.run else {},
                "byproducts": [
                    {"name": name, "digest": {"sha256": entry.sha256}}
                    for name, entry in sorted(evidence.items())
                    if name != PROVENANCE
                ],
            },
        },
    }


def licence_of(history: History) -> str | None:
    """The licence of the model that was fetched, as its source names it."""
    return next(
        (str(made.facts["model.license"]) for made in _of(history, FETCH) if made.facts.get("model.license")), None
    )


def _step(made: Made) -> dict[str, JSON]:
    return cast("dict[str, JSON]", made.model_dump(mode="json", exclude={"facts"}, exclude_none=True))


def _of(history: History, step: str) -> list[Made]:
    return [made for made in history.steps.values() if made.step == step]


def _sources(settings: Settings, history: History) -> list[dict[str, object]]:
    """What fetch read: where from, as the recipe says, and which bytes, as it was pinned."""
    found: list[dict[str, object]] = []
    for name in ("model", "data"):
        source = settings.told(name, "source")
        for made in _of(history, FETCH):
            read = made.settings.get(name)
            pin = read.get("pin") if isinstance(read, dict) else None
            if isinstance(pin, str):
                at = {"uri": source} if source else {}
                found.append({"name": name, **at, **_pinned(pin), "annotations": {"pin": pin}})
    return found


def _artifacts(history: History) -> list[dict[str, object]]:
    """Every artifact that a step was given, by digest."""
    named: dict[str, str] = {}
    for made in history.steps.values():
        for port, at in made.inputs.items():
            for digest in [at] if isinstance(at, str) else at.values():
                named.setdefault(digest, f"{made.step}/{port}")
    return [{"name": name, "digest": _sha256(digest)} for digest, name in sorted(named.items())]


def _images(history: History) -> list[dict[str, object]]:
    """The container images, with a digest where the deployment pins one."""
    found = sorted({made.image for made in history.steps.values() if made.image})
    return [{"name": "image", "uri": image, **_digest_in(image)} for image in found]


def _digest_in(text: str) -> dict[str, object]:
    match = _SHA256.search(text)
    return {"digest": {"sha256": match[1]}} if match else {}


def _pinned(pin: str) -> dict[str, object]:
    """A pin as a digest: of the files, or the Hub's commit."""
    return {"digest": {"gitCommit": pin}} if _COMMIT.fullmatch(pin) else _digest_in(pin)


def _sha256(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}
