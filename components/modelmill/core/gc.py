"""Collecting what no kept run and no registry entry refers to.

Kept is

- what the newest runs refer to: their step keys, through the step records, and every digest and path in them;
- what documents of the registry, recipes and pushed data refer to. Of the registry it is all that channels ever named,
  or, where a number is given, what they name and named in their last moves, what a pin held back in them, and what no
  channel has named yet (`modelmill.core.registry.artifacts_in_use`);
- what was stored or renewed within the grace age, and since any live run started, less the grace age.

A run that adopts an old artifact renews it first, and `Store.retire_artifact` looks at the age once more in a way that
excludes a renewal at the same moment: what a run has adopted is never taken from it, by any number of collectors.
(Leases alone would not do: a run may start, and adopt, after a collector has read the leases.)
"""

from __future__ import annotations

import json
import re

from pydantic import Field

from modelmill.core import records, registry
from modelmill.core.contract import Closed
from modelmill.core.errors import CorruptArtifactError, StoreError, UsageError
from modelmill.core.leases import EXPIRY_SECONDS, Lease, leases
from modelmill.core.progress import Progress
from modelmill.core.records import StepRecord
from modelmill.core.store import Document, Store, hex_of, refuse_newer

GRACE_SECONDS = 3600.0
"""The default grace age. An orchestrator whose single steps run longer, without a lease, needs more."""
_REGISTRY = "registry/"
_ROOTS = (_REGISTRY, "recipes/", "pushed/")
_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


class GcReport(Closed):
    """What a collection removed, or would."""

    dry_run: bool
    runs_kept: int
    live_runs: list[str] = Field(description="runs with a live lease")
    artifacts_kept: int
    artifacts: list[str] = Field(description="digests of removed artifacts")
    records: list[str] = Field(description="step keys whose records were removed")
    scratch: int | None = Field(description="scratch directories removed; unknown in a dry run")
    leftovers: int | None = Field(description="leftovers of killed writers removed; unknown in a dry run")
    removed_bytes: int


def collect(
    store: Store,
    keep: int,
    progress: Progress,
    grace_seconds: float = GRACE_SECONDS,
    *,
    history: int | None = None,
    dry_run: bool = False,
) -> GcReport:
    """Remove what is no longer needed.

    Args:
        store: The store to collect in.
        keep: How many of the newest runs keep what they refer to.
        progress: Where to report to.
        grace_seconds: Nothing younger is removed.
        history: How many of its latest moves keep their bundles in each channel; None: all.
        dry_run: Only say what would go.

    Raises:
        UsageError: A negative ``keep`` or ``grace_seconds``.
        StoreError: The store is away, or holds documents of a newer modelmill or damaged ones: what they need is
            unknown here, and nothing is removed.
    """
    if keep < 0 or grace_seconds < 0:
        what = f"gc cannot keep {keep} runs with a grace age of {grace_seconds:g} s"
        raise UsageError(what, fix="give --keep and the grace age as numbers of at least 0")
    now = store.now()
    held = leases(store, now)
    live = [lease for lease in held if lease.live]
    cutoff = min([now, *(lease.started for lease in live)]) - grace_seconds
    kept_runs, needed = _needed_by_runs(store, keep, {lease.run for lease in live})
    for prefix in _ROOTS:
        for name, _ in store.list_documents(prefix):
            document = store.read(name)
            if document is not None and name.endswith(".json"):
                _require_json(document, name)
            if prefix != _REGISTRY or history is None:
                needed |= _digests(document)
    if history is not None:
        needed |= {hex_of(digest) for digest in registry.artifacts_in_use(store, history)}
    roots = frozenset(needed)
    going = []
    for document, name, changed_at, record in records.records(store):
        if changed_at > cutoff or (record is not None and hex_of(record.key) in roots):
            needed |= _digests(document)
        else:
            going.append((name, document, record))
    present = {digest: changed_at for digest, changed_at in store.list_artifacts() if _is_digest(digest)}
    candidates = [digest for digest, at in present.items() if hex_of(digest) not in needed and at <= cutoff]
    removed, size = _retire(store, candidates, cutoff, progress, dry_run=dry_run)
    gone = _forget(store, going, set(present) - set(removed), dry_run=dry_run)
    scratch = leftovers = None
    if not dry_run:
        scratch = store.discard_scratch(cutoff)
        rest = store.discard_leftovers(cutoff)
        leftovers, size = rest.count, size + rest.size
        _drop_dead(store, held)
    return GcReport(
        dry_run=dry_run,
        runs_kept=kept_runs,
        live_runs=sorted({lease.run for lease in live}),
        artifacts_kept=len(present) - len(removed),
        artifacts=removed,
        records=gone,
        scratch=scratch,
        leftovers=leftovers,
        removed_bytes=size,
    )


def _needed_by_runs(store: Store, keep: int, live: set[str]) -> tuple[int, set[str]]:
    """How many runs are kept, and every digest in their documents.

    Raises:
        StoreError: A run's record is damaged.
    """
    found: list[tuple[str, str, Document]] = []
    for name, _ in store.list_documents("runs/"):
        document = store.read(name) if name.endswith(".json") else None
        if document is not None:
            run = name.removeprefix("runs/").removesuffix(".json")
            found.append((_started(document, name), run, document))
    found.sort(key=lambda item: item[:2], reverse=True)
    kept = [item for rank, item in enumerate(found) if rank < keep or item[1] in live or not item[0]]
    needed: set[str] = set()
    for _, _, document in kept:
        needed |= _digests(document)
    return len(kept), needed


def _started(document: Document, name: str) -> str:
    content = _require_json(document, name)
    refuse_newer(content, "run", name)
    started = content.get("started_at") if isinstance(content, dict) else None
    return started if isinstance(started, str) else ""


def _require_json(document: Document, name: str) -> object:
    """What a document holds. A damaged one may have named anything, so that nothing can be called unneeded."""
    try:
        return json.loads(document.content)
    except ValueError:
        what = "a document is damaged, and what it needs is unknown: nothing was removed"
        fix = "put it back from a copy, or remove it if what it named may go; then collect again"
        raise StoreError(what, where=name, fix=fix) from None


def _retire(
    store: Store, candidates: list[str], cutoff: float, progress: Progress, *, dry_run: bool
) -> tuple[list[str], int]:
    """Remove candidates that are still old; the removed ones and their bytes."""
    done, size = [], 0
    with progress.bar("remove artifacts", len(candidates)) as bar:
        for digest in candidates:
            if dry_run:
                size += _size(store, digest)
                done.append(digest)
            elif (removed := store.retire_artifact(digest, cutoff)) is not None:
                size += removed.size
                done.append(digest)
            bar.advance()
    return done, size


def _forget(
    store: Store, going: list[tuple[str, Document, StepRecord | None]], present: set[str], *, dry_run: bool
) -> list[str]:
    """Remove old records that cannot be adopted any more, unless they were replaced meanwhile; their keys."""
    gone = []
    for name, document, record in going:
        if record is not None and present.issuperset(record.outputs.values()):
            continue
        if dry_run or store.delete(name, document.version):
            gone.append("sha256:" + name.removeprefix("keys/").removesuffix(".json"))
    return gone


def _drop_dead(store: Store, held: list[Lease]) -> None:
    for lease in held:
        if not lease.live and store.now() - lease.started > EXPIRY_SECONDS:
            store.delete(lease.name)


def _size(store: Store, digest: str) -> int:
    try:
        manifest = store.read_manifest(digest)
    except CorruptArtifactError:
        return 0
    return manifest.size if manifest else 0


def _is_digest(digest: str) -> bool:
    return re.fullmatch(r"sha256:[0-9a-f]{64}", digest) is not None


def _digests(document: Document | None) -> set[str]:
    return set() if document is None else {found.decode() for found in _DIGEST.findall(document.content)}
