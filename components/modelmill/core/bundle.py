"""The bundle: ``bundle.json`` beside what publish ships, and the check of all of it, offline.

``files`` (models, tokenizers, configurations, choices, serving files) are what the bundle's digest covers: the same
model made again is the same bundle. ``evidence`` (card, report, recipe, verdicts) varies with every measurement: it is
bound to the digest, for each verdict names the model it judged, and is not in it. ``model.sig``
(`modelmill.core.signature`) covers both through ``bundle.json``, and lies outside of them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, NoReturn

from pydantic import Field, ValidationError

from modelmill.core.contract import Closed, PortType
from modelmill.core.errors import InputError, StoreError
from modelmill.core.evidence import LaneEvidence, Verdict
from modelmill.core.manifest import MANIFEST, FileEntry, Manifest, canonical, safe_name, sha256_of, write_json

BUNDLE_DOCUMENT = "bundle.json"
SIGNATURE = "model.sig"
EVIDENCE_DOCUMENT = "evidence.json"
PROVENANCE = "provenance.json"
SIGNED_PROVENANCE = "provenance.intoto.jsonl"
"""The same, signed: a DSSE envelope on one line, as SLSA's tools read it."""
BILL_OF_MATERIALS = "bom.cdx.json"
CHOICE = "choice.json"
LANES = "lanes"
BROWSERS = "onnx"
"""Where transformers.js looks for a graph: a copy of the root lane's."""
SERVING = "serving"
"""The folder in a lane with what a server reads besides the model."""
FORMAT = 1

Digest = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class BundleLane(Closed):
    """Where a lane's model lies in the bundle."""

    path: str = Field(description="'.' for the model at the root, or lanes/TARGET")
    model: Digest = Field(description="digest of the model artifact that lies there")
    verdict: str = Field(description="the evidence file that judged it")


class BundleDocument(Closed):
    """``bundle.json``."""

    format: int = FORMAT
    model: str = Field(description="the model's name in the registry")
    digest: Digest = Field(description="over the paths, sha256 and sizes of `files`")
    lanes: dict[str, BundleLane] = Field(min_length=1, description="target → where its model lies")
    files: dict[str, FileEntry] = Field(min_length=1, description="what the digest covers")
    evidence: dict[str, FileEntry] = Field(description="what is bound to the digest, and not in it")
    checksum: Digest = Field(description="over this document without this field")


@dataclass(frozen=True)
class BundleCheck:
    """A bundle in which nothing is wrong.

    Attributes:
        model: Its name in the registry.
        digest: ``sha256:…``, recomputed from the bytes.
        lanes: Target → where its model lies.
        files: Number of files that the digest covers.
        evidence: Number of files bound to it.
        size_bytes: Bytes of all files.
        signature: ``unsigned``, ``not checked`` (for want of a key), or ``checked``.
        signer: ``sha256:…``, the fingerprint of the key that signed, or is said to have; an identity and its issuer
            where one signed without a key, ``keyless`` where that is only said.
    """

    model: str
    digest: str
    lanes: Mapping[str, str]
    files: int
    evidence: int
    size_bytes: int
    signature: str = "unsigned"
    signer: str | None = None


def digest_of(files: Mapping[str, FileEntry]) -> str:
    """``sha256:…`` over sorted paths, sha256 and sizes: the form that artifact digests have."""
    return Manifest(type=PortType.BUNDLE, files=dict(files)).digest


def model_digest_of(files: Mapping[str, FileEntry], path: str) -> str:
    """The digest of the model artifact whose files lie at ``path`` (a lane's) among the covered files."""
    if path == ".":
        beside = (f"{LANES}/", f"{BROWSERS}/")
        inside = {name: entry for name, entry in files.items() if not name.startswith(beside)}
    else:
        inside = {name.removeprefix(f"{path}/"): entry for name, entry in files.items() if name.startswith(f"{path}/")}
    own = {name: entry for name, entry in inside.items() if name != CHOICE and not name.startswith(f"{SERVING}/")}
    return digest_of(own)


def write_bundle(
    directory: Path,
    model: str,
    lanes: Mapping[str, BundleLane],
    files: Mapping[str, FileEntry],
    evidence: Mapping[str, FileEntry],
) -> BundleDocument:
    """Write ``bundle.json`` beside files that are there already."""
    unsealed = {
        "format": FORMAT,
        "model": model,
        "digest": digest_of(files),
        "lanes": {target: lane.model_dump(mode="json") for target, lane in lanes.items()},
        "files": {name: entry.model_dump(mode="json") for name, entry in files.items()},
        "evidence": {name: entry.model_dump(mode="json") for name, entry in evidence.items()},
    }
    document = BundleDocument.model_validate({**unsealed, "checksum": _checksum(unsealed)})
    write_json(directory / BUNDLE_DOCUMENT, document.model_dump(mode="json"))
    return document


def read_bundle(directory: Path) -> BundleDocument:
    """A bundle's document, whole in itself; the files are not looked at.

    Raises:
        InputError: It is missing, damaged, of a newer format, or names a path outside the bundle.
    """
    path = directory / BUNDLE_DOCUMENT
    if not path.is_file() or path.is_symlink():
        what = f"this is no bundle: it has no {BUNDLE_DOCUMENT}"
        raise InputError(what, where=str(directory), fix="give the directory that publish wrote")
    content = path.read_bytes()
    try:
        raw = json.loads(content)
        number = raw.get("format") if isinstance(raw, dict) else None
        if isinstance(number, int) and number > FORMAT:
            what = f"{BUNDLE_DOCUMENT} has format {number}, written by a newer modelmill; this one reads {FORMAT}"
            raise InputError(what, where=str(path), fix="upgrade modelmill")
        document = BundleDocument.model_validate(raw)
    except (ValidationError, ValueError, RecursionError) as error:
        first = f": {error.errors()[0]['msg']}" if isinstance(error, ValidationError) else ""
        _refuse(f"{BUNDLE_DOCUMENT} is not what publish writes{first}", path)
    for name in (*document.files, *document.evidence, *(lane.path for lane in document.lanes.values())):
        try:
            safe_name(name)
        except StoreError:
            _refuse(f"{BUNDLE_DOCUMENT} names {name!r}, which leaves the bundle", path)
    dumped = document.model_dump(mode="json")
    written = (json.dumps(dumped, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()
    unsealed = {name: value for name, value in dumped.items() if name != "checksum"}
    if document.checksum != _checksum(unsealed) or content != written:
        _refuse(f"{BUNDLE_DOCUMENT} was changed: it differs from its own checksum", path)
    if document.digest != digest_of(document.files):
        _refuse(f"{BUNDLE_DOCUMENT} names a digest that its files do not have", path)
    return document


def verify(directory: Path) -> BundleCheck:
    """Check a bundle offline: every byte, the digest, and that the evidence is about these models; not the signature.

    Args:
        directory: The bundle; the store's ``manifest.json`` may lie in it, and must then agree on the files. Which step
            it says made them is the store's own note, that nobody signs: who made a bundle is in its provenance.

    Raises:
        InputError: Something is wrong; the first thing is named: in ``bundle.json``, then by path a file that is
            missing, added or changed, then evidence that is about another model.
    """
    document = read_bundle(directory)
    entries = {**document.files, **document.evidence}
    found = dict(_files(directory))
    for name in sorted({*found, *entries} - {BUNDLE_DOCUMENT, MANIFEST, SIGNATURE}):
        entry, path = entries.get(name), found.get(name)
        if entry is None:
            _refuse(f"{name} was added: {BUNDLE_DOCUMENT} does not name it", directory / name)
        if path is None:
            _refuse(f"{name} is missing", directory / name)
        if path.stat().st_size != entry.size or sha256_of(path) != entry.sha256:
            _refuse(f"{name} was changed: it differs from its sha256", path)
    for target, lane in document.lanes.items():
        _check_lane(directory, document, target, lane)
    for name, said in _BOUND.items():
        if name not in document.evidence:
            _refuse(f"{name} is missing: {BUNDLE_DOCUMENT} does not name it", directory / name)
        _check_bound(directory / name, said, document.digest)
    for target in document.lanes:
        _check_told(directory / EVIDENCE_DOCUMENT, ("lanes", target, "verdict"), Verdict.PASS.value)
    filled = {str(parent) for name in found for parent in PurePosixPath(name).parents}
    for path in sorted(directory.rglob("*")):
        if path.is_dir() and path.relative_to(directory).as_posix() not in filled:
            _refuse(f"{path.relative_to(directory)} was added: {BUNDLE_DOCUMENT} names nothing in it", path)
    if MANIFEST in found:
        own = [name for name in (BUNDLE_DOCUMENT, SIGNATURE) if name in found]
        _check_manifest(found[MANIFEST], {**entries, **{name: _entry(found[name]) for name in own}})
    return BundleCheck(
        model=document.model,
        digest=document.digest,
        lanes={target: lane.path for target, lane in document.lanes.items()},
        files=len(document.files),
        evidence=len(document.evidence),
        size_bytes=sum(entry.size for entry in entries.values()),
    )


def _check_lane(directory: Path, document: BundleDocument, target: str, lane: BundleLane) -> None:
    if model_digest_of(document.files, lane.path) != lane.model:
        _refuse(f"the files of the lane {target} are not the model {lane.model}", directory / lane.path)
    path = directory / lane.verdict
    if lane.verdict not in document.evidence:
        _refuse(f"the evidence of the lane {target} is missing", path)
    try:
        evidence = LaneEvidence.model_validate_json(path.read_bytes())
    except ValidationError as error:
        _refuse(f"{lane.verdict} is no verdict: {error.errors()[0]['msg']}", path)
    if evidence.digests.get("model") != lane.model:
        judged = evidence.digests.get("model", "none")
        _refuse(f"{lane.verdict} is evidence of another model, {judged}", path)
    if evidence.target != target or evidence.verdict is not Verdict.PASS:
        _refuse(f"{lane.verdict} says {evidence.verdict.value} of the target {evidence.target}", path)


# Where a document says which bundle it is about; the digest with or without its "sha256:".
_BOUND: Mapping[str, Sequence[str | int]] = {
    EVIDENCE_DOCUMENT: ("bundle",),
    PROVENANCE: ("subject", 0, "digest", "sha256"),
    BILL_OF_MATERIALS: ("metadata", "component", "hashes", 0, "content"),
}


def _check_bound(path: Path, keys: Sequence[str | int], digest: str) -> None:
    found = _told(path, keys)
    if found.removeprefix("sha256:") != digest.removeprefix("sha256:"):
        _refuse(f"{path.name} is about another bundle, {found[:80]}", path)


def _check_told(path: Path, keys: Sequence[str | int], expected: str) -> None:
    found = _told(path, keys)
    if found != expected:
        _refuse(f"{path.name} says {found[:80]} where the verdict itself says {expected}", path)


def _told(path: Path, keys: Sequence[str | int]) -> str:
    try:
        return str(functools.reduce(lambda at, key: at[key], keys, json.loads(path.read_bytes())))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return "none"


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=sha256_of(path), size=path.stat().st_size)


def _check_manifest(path: Path, entries: Mapping[str, FileEntry]) -> None:
    content = path.read_bytes()
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError:
        _refuse(f"{MANIFEST} is not what a store writes", path)
    if content != canonical(manifest.model_dump(mode="json")) or manifest.type != PortType.BUNDLE:
        _refuse(f"{MANIFEST} is not what a store writes of a bundle", path)
    if manifest.files != entries:
        _refuse(f"{MANIFEST} lists other files than {BUNDLE_DOCUMENT}", path)


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Every regular file as (POSIX path, path). Links are not followed: what they name lies elsewhere."""
    for path in sorted(directory.rglob("*")):
        mode = path.lstat().st_mode
        name = path.relative_to(directory).as_posix()
        if stat.S_ISREG(mode):
            yield name, path
        elif not stat.S_ISDIR(mode):
            _refuse(f"{name} is a link or a special file; a bundle holds regular files only", path)


def _checksum(unsealed: Mapping[str, object]) -> str:
    return "sha256:" + hashlib.sha256(canonical(unsealed)).hexdigest()


def _refuse(what: str, where: Path) -> NoReturn:
    raise InputError(what, where=str(where), fix="do not use this bundle: fetch it anew, or publish again") from None
