"""Whether a cluster serves what a channel names; and the way back where it does not.

The same check as the smoke test's, at the address of an InferenceService. It runs where the store can be read, beside
the line and not in it: the evaluation's rows and predictions are found by the digests in the verdict.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import Field

from modelmill.core import bundle as bundles
from modelmill.core import channels, promotable, registry
from modelmill.core.batch_plan import plan_batches
from modelmill.core.channels import Moved
from modelmill.core.contract import Closed
from modelmill.core.errors import InputError, ModelmillError, UsageError
from modelmill.core.evidence import LaneEvidence
from modelmill.core.model import read_model
from modelmill.core.progress import Progress
from modelmill.core.rows import read_rows
from modelmill.core.store import Store
from modelmill.deployment import Deployment
from modelmill.serving import agreement, kserve, rollout
from modelmill.serving.client import AnswerError, Client
from modelmill.serving.rollout import Health
from modelmill.steps.publish import gitops, mirrors

NOT_HEALTHY = 3
"""The exit code of ``modelmill serving check`` where the bundle is not served as it should: a refusal is a result."""
_TIMED = 64
"""Texts that are timed one by one, after as many batches."""
_P95 = 95
_MOVED_ON = "the channel names another bundle by now, and stays"


class Asked(Closed):
    """What to check, and how."""

    model: str
    channel: str
    namespace: str
    name: str | None = Field(None, description="the InferenceService's; None: by the model's")
    target: str | None = Field(None, description="the lane; None: the bundle's only one")
    uri: str | None = Field(None, description="the storageUri; None: where the store has the bundle")
    address: str | None = Field(None, description="where it answers; None: what its status says")
    host: str | None = Field(None, description="the Host header")
    seconds: float = Field(description="how long to wait")
    texts: int = Field(description="evaluation texts, about")
    max_p95_ms: float | None = Field(None, gt=0, description="of one text; None: what the gate allowed in its test")


class Checked(Closed):
    """What was found."""

    healthy: bool
    words: str
    bundle: str
    rows: int = 0
    differing: int = 0
    p95_ms: float | None = None
    max_p95_ms: float | None = None
    rolled_back_to: str | None = None
    git: str | None = None


def check(store: Store, deployment: Deployment, asked: Asked, by: str | None, progress: Progress) -> Checked:
    """Wait for the InferenceService, ask it, and take the channel back where it is not healthy.

    Args:
        store: Holds the registry, the bundle and what the evaluation was about.
        deployment: Names the Git repository that a rollback is committed to.
        asked: What and how.
        by: Who takes the channel back; None: nobody does.
        progress: Told what the cluster says.

    Raises:
        UsageError: The channel names nothing, or the bundle has no such lane.
        InputError: The lane has no serving files, or the store no longer has what it was evaluated on.
        DeploymentError: The cluster does not let us look; or what is wrong with Git was seen before anything moved.
        OutsideError: The cluster, the store or Git is away, or the InferenceService does not name the bundle. Nothing
            was taken back, unless the message says so.
    """
    record = promotable.find_served(store, asked.model, asked.channel)
    directory = store.get_artifact(record.artifact, progress)
    evidence = _evidence(directory, asked.target)
    found = _found(store, asked, directory, evidence, asked.uri or store.artifact_uri(record.artifact), progress)
    if found.healthy or by is None:
        return found
    return _taken_back(store, deployment, asked, found, by, progress)


def _evidence(bundle: Path, target: str | None) -> LaneEvidence:
    lanes = bundles.read_bundle(bundle).lanes
    chosen = target or (next(iter(lanes)) if len(lanes) == 1 else None)
    if chosen is None or chosen not in lanes:
        what = f"the bundle has no lane {chosen}" if chosen else "the bundle has several lanes"
        raise UsageError(what, where="--target", fix=f"name one of: {', '.join(lanes)}")
    evidence = LaneEvidence.model_validate_json((bundle / lanes[chosen].verdict).read_bytes())
    if evidence.smoke is None or evidence.smoke.plan is None:
        what = f"the lane {chosen} of this bundle has no serving files"
        raise InputError(what, where=str(bundle), fix="publish again with this modelmill")
    return evidence


def _found(store: Store, asked: Asked, bundle: Path, evidence: LaneEvidence, uri: str, progress: Progress) -> Checked:
    digest = bundles.read_bundle(bundle).digest
    name = asked.name or kserve.object_name(asked.model)
    seen = rollout.wait(rollout.connect(), asked.namespace, name, uri, seconds=asked.seconds, progress=progress)
    if seen.health is not Health.READY:
        when = "" if seen.health is Health.FAILED else f" after {asked.seconds / 60:g} minutes"
        return Checked(
            healthy=False, words=f"{asked.namespace}/{name} is not healthy{when}: {seen.words}", bundle=digest
        )
    address = asked.address or seen.address
    if address is None:
        what = f"the InferenceService {name} does not say where it answers"
        raise UsageError(what, where="--address", fix="name its address, as this machine reaches it")
    try:
        return _answered(store, asked, bundle, evidence, address, digest, progress)
    except AnswerError as problem:
        return Checked(healthy=False, words=f"{address} refuses a text of the evaluation: {problem}", bundle=digest)


def _answered(
    store: Store, asked: Asked, bundle: Path, evidence: LaneEvidence, address: str, digest: str, progress: Progress
) -> Checked:
    # tokenizers is where models are; who only looks at a cluster need not have it.
    from modelmill.serving.triton_model import Encoder

    place = bundle / bundles.read_bundle(bundle).lanes[evidence.target].path
    rows = list(read_rows(_kept(store, evidence, "rows", progress)))
    predictions = _kept(store, evidence, "candidate", progress)
    texts = [agreement.text_of(row) for row in rows]
    encoder = Encoder(place, read_model(place).max_length)
    plan = plan_batches(encoder.lengths(texts))
    assert evidence.smoke is not None
    assert evidence.smoke.plan is not None
    with Client(address, evidence.smoke.plan.model, host=asked.host) as client:
        found = agreement.ask(client, rows, plan, predictions, asked.texts, progress)
        times = []
        for text in texts[:: max(1, len(texts) // _TIMED)][:_TIMED]:
            begun = time.perf_counter()
            client.scores([text])
            times.append(1e3 * (time.perf_counter() - begun))
    p95, allowed = float(np.percentile(times, _P95)), asked.max_p95_ms
    if allowed is None:
        allowed = _allowed(evidence)
    slow = allowed is not None and p95 > allowed
    words = (
        f"{found.differing:,} of {found.rows:,} predictions at {address} are not the evaluation's"
        if found.differing
        else f"the 95th percentile of one text's time at {address} is {p95:.1f} ms, and {allowed:g} ms are allowed"
        if slow
        else f"all {found.rows:,} predictions at {address} are the evaluation's, one text within {p95:.1f} ms (p95)"
    )
    return Checked(
        healthy=not found.differing and not slow,
        words=words,
        bundle=digest,
        rows=found.rows,
        differing=found.differing,
        p95_ms=round(p95, 3),
        max_p95_ms=allowed,
    )


def _kept(store: Store, evidence: LaneEvidence, port: str, progress: Progress) -> Path:
    digest = evidence.digests.get(port, "")
    if store.read_manifest(digest) is None:
        what = f"the store no longer has the {port} that the lane {evidence.target} was judged on, {digest}"
        raise InputError(what, where=store.uri, fix="run the recipe again: what is missing is made anew")
    return store.get_artifact(digest, progress)


def _allowed(evidence: LaneEvidence) -> float | None:
    """The gate's bound of the ratio, in milliseconds on the machine of the smoke test; None where it was not judged."""
    latency = evidence.smoke.latency if evidence.smoke else None
    bound = next((found.threshold for found in evidence.checks if found.name == "max_served_p95_ratio"), None)
    return None if latency is None or bound is None else round(bound * latency.in_process_ms_p95, 3)


def _taken_back(
    store: Store, deployment: Deployment, asked: Asked, found: Checked, by: str, progress: Progress
) -> Checked:
    model, name = asked.model, asked.channel
    now = registry.show_channel(store, model, name)
    back = channels.before_present(now) if now else None
    if now is None or now.bundle != found.bundle:
        return found.model_copy(update={"words": f"{found.words}; {_MOVED_ON}"})
    if back is None:
        return found.model_copy(update={"words": f"{found.words}; there is no bundle before it to go back to"})
    with _saying(found.words):
        done = _rolled_back(store, deployment, asked, found, back, by, progress)
    if not done.moved:
        return found.model_copy(update={"words": f"{found.words}; {_MOVED_ON}"})
    words = f"{found.words}; rolled back to {back}, and pinned: modelmill channel unpin {model} {name} lifts it"
    with _saying(words):
        git = _told(store, deployment, done, progress)
    return found.model_copy(update={"words": words, "rolled_back_to": back, "git": git})


def _rolled_back(
    store: Store, deployment: Deployment, asked: Asked, found: Checked, back: str, by: str, progress: Progress
) -> Moved:
    """The channel on the bundle before; or as it is, where somebody has moved it since it was checked."""
    record = promotable.find_named(store, asked.model, back)
    if deployment.git is not None:
        gitops.require_ready(deployment.git, asked.model, asked.channel)
    why = f"serving check: {found.words}"[:500]
    return channels.roll_back(
        store, asked.model, asked.channel, record, by=by, why=why, progress=progress, leaving=found.bundle
    )


def _told(store: Store, deployment: Deployment, done: Moved, progress: Progress) -> str | None:
    """Let mirrors and Git follow; what became of it in Git."""
    if deployment.mirrors is not None:
        mirrors.follow(store, deployment.mirrors, done.channel.model, progress)
    return gitops.follow(store, deployment.git, done, progress, back=True).words if deployment.git else None


@contextmanager
def _saying(words: str) -> Iterator[None]:
    """Put what was found before an error: who reads it learns of both."""
    try:
        yield
    except ModelmillError as problem:
        problem.what = f"{words}; but {problem.what}"
        raise
