"""What a promotion writes into a Kustomize overlay, and what it presumes of what lies there.

Below the overlay's folder a component of its own, ``promotion/kustomization.yaml``, holds all that a promotion changes,
so that nothing a person wrote is edited. The overlay lists it under ``components``.

Source: the Kustomize API, kustomize.config.k8s.io/v1alpha1 Component (KEP-1802).
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import yaml

from modelmill.core.errors import DeploymentError

COMPONENT = "promotion"
PREFIX = "modelmill.dev/"
_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_HEADER = """\
# Written by modelmill when a channel moves. To keep the cluster on this bundle whatever is promoted, set the annotation
# modelmill.dev/pinned: "true" here or in the kustomization.yaml above; taking it away lets promotions in again.
"""
_OVERLAY = """\
# The base that serves the model belongs here:
# resources: [../../../base]
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
components: [promotion]
"""

Read = Callable[[str], bytes | None]
"""The file at a path of the repository, or None."""


@dataclass(frozen=True)
class Promotion:
    """What an overlay is to say.

    Attributes:
        model: The model's name in the registry.
        channel: The channel.
        move: The number of the channel's latest entry: of two states of it the higher is the newer.
        kind: What that move was, in words.
        bundle: The bundle's digest.
        uri: Where its files lie.
        verdict: ``pass``, or ``overridden`` where a person promoted it without.
        report: Where its report lies.
        by: The run or the person.
        why: The reason that a person gave.
        image: The serving image, NAME@sha256:…, where it is known.
    """

    model: str
    channel: str
    move: int
    kind: str
    bundle: str
    uri: str
    verdict: str
    report: str
    by: str
    why: str | None = None
    image: str | None = None


class Finding(StrEnum):
    """What an overlay says of a promotion."""

    TO_WRITE = "to write"
    SAME = "the same already"
    NEWER = "newer already"
    PINNED = "pinned"


@dataclass(frozen=True)
class Edit:
    """A promotion held against an overlay: what was found, in words where nothing is written, and what to write."""

    finding: Finding
    words: str
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Overlay:
    """What lies in the repository where a channel's promotions go.

    Attributes:
        place: The component's file, which promotions write.
        written: Its content; None where nothing was promoted yet.
        move: The number of the move that it has.
        bare: Whether the overlay that lists it is still to be made.
        pins: The files in which a person keeps promotions out.
    """

    place: str
    written: bytes | None
    move: int
    bare: bool
    pins: list[str]


def look(model: str, channel: str, folder: str, read: Read) -> Overlay:
    """What lies there now, which a promotion of that channel may write to.

    Raises:
        DeploymentError: The overlay does not list the component, so that nothing would follow from it; it is no YAML;
            or what lies there is another channel's.
    """
    path = f"{folder}/{COMPONENT}/kustomization.yaml"
    pins: list[str] = []
    above = ((place, read(place)) for place in (f"{folder}/{name}" for name in _NAMES))
    place, content = next((found for found in above if found[1] is not None), ("", None))
    if content is not None:
        overlay = _mapping(content, place)
        if _pinned(overlay):
            pins.append(place)
        listed = overlay.get("components")
        if COMPONENT not in [posixpath.normpath(str(item)) for item in (listed if isinstance(listed, list) else [])]:
            what = f"{place} does not list the component that promotions write, so that nothing would follow"
            raise DeploymentError(what, where=place, fix=f"add to it:  components: [{COMPONENT}]")
    written = read(path)
    now = _mapping(written, path) if written is not None else {}
    if _pinned(now):
        pins.append(path)
    said = _annotations(now)
    theirs = [str(said.get(f"{PREFIX}{key}", ours)) for key, ours in (("model", model), ("channel", channel))]
    if theirs != [model, channel]:
        what = f"{path} is what {' '.join(theirs)} serves, and {model} {channel} would be written over it"
        fix = "give each its own: {model} and {channel} in git.overlay; or remove that file where it is of the past"
        raise DeploymentError(what, where="git.overlay", fix=fix)
    return Overlay(path, written, _move(now), content is None, pins)


def edit(promotion: Promotion, folder: str, read: Read) -> Edit:
    """What to write for a promotion, given what lies in the repository now.

    Raises:
        DeploymentError: As `look`.
    """
    found = look(promotion.model, promotion.channel, folder, read)
    files = {found.place: _component(promotion)}
    if found.bare:
        files[f"{folder}/{_NAMES[0]}"] = _OVERLAY.encode()
    if found.written == files[found.place] and not found.bare:
        return Edit(Finding.SAME, f"{found.place} names {promotion.bundle} already", {})
    if found.pins:
        words = f"held back by a pin in Git: {found.pins[0]} has {PREFIX}pinned; take it away to let promotions in"
        return Edit(Finding.PINNED, words, {})
    if found.move > promotion.move:
        newer = f"newer than move {promotion.move}"
        words = f"{found.place} has move {found.move} of {promotion.channel} already, which is {newer}"
        return Edit(Finding.NEWER, words, {})
    return Edit(Finding.TO_WRITE, "", files)


def _component(promotion: Promotion) -> bytes:
    name, _, digest = (promotion.image or "").partition("@")
    told = {
        "model": promotion.model,
        "channel": promotion.channel,
        "move": str(promotion.move),
        "bundle": promotion.bundle,
        "uri": promotion.uri,
        "verdict": promotion.verdict,
        "report": promotion.report,
        "promoted-by": promotion.by,
        "image": promotion.image,
    }
    patch = [{"op": "add", "path": "/spec/predictor/model/storageUri", "value": promotion.uri}]
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "commonAnnotations": {f"{PREFIX}{key}": value for key, value in told.items() if value},
        "patches": [{"target": {"kind": "InferenceService"}, "patch": yaml.safe_dump(patch, sort_keys=False)}],
        **({"images": [{"name": name, "digest": digest}]} if digest else {}),
    }
    return (_HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)).encode()


def message(promotion: Promotion) -> str:
    """The commit's message, of lines that hold no more than a history or a run's name says."""
    lines = [
        f"{promotion.model} {promotion.channel}: {promotion.kind}, {promotion.bundle[:19]}",
        "",
        f"Move {promotion.move}, by {promotion.by}.",
        *([f"Why: {promotion.why}"] if promotion.why else []),
        f"Bundle: {promotion.bundle}",
        f"URI: {promotion.uri}",
        f"Verdict: {promotion.verdict}",
        f"Report: {promotion.report}",
    ]
    return "\n".join(" ".join(line.split()) for line in lines) + "\n"


def _mapping(content: bytes, place: str) -> dict[str, object]:
    try:
        found = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        what = f"{place} in the Git repository is no YAML: {str(problem).splitlines()[0]}"
        raise DeploymentError(what, where=place, fix="mend it there") from None
    return found if isinstance(found, dict) else {}


def _annotations(document: Mapping[str, object]) -> dict[str, object]:
    metadata = document.get("metadata")
    own = metadata.get("annotations") if isinstance(metadata, dict) else None
    common = document.get("commonAnnotations")
    return {**(own if isinstance(own, dict) else {}), **(common if isinstance(common, dict) else {})}


def _pinned(document: Mapping[str, object]) -> bool:
    return str(_annotations(document).get(f"{PREFIX}pinned", "")).lower() == "true"


def _move(document: Mapping[str, object]) -> int:
    found = str(_annotations(document).get(f"{PREFIX}move", ""))
    return int(found) if found.isascii() and found.isdigit() else 0
