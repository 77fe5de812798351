"""Committing what a channel names to the Git repository that a cluster follows.

The loop: fetch → hold the promotion against what lies there now → commit → push. A push that another came before, or
whose end is unknown, starts it over on what is there then: the edit is a function, applied anew and checked anew,
never merged and never forced. What is written is what the registry's channel names, so that a writer that was killed
between the two is made good by the next, and the same bundle twice is one commit.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from modelmill.core import promotable, registry
from modelmill.core.channels import Moved
from modelmill.core.contract import JSON
from modelmill.core.errors import DeploymentError, GitError, ModelmillError, StoreError
from modelmill.core.progress import Progress
from modelmill.core.store import Store
from modelmill.steps.publish.git_credentials import Credentials
from modelmill.steps.publish.git_remote import AwayError, GitRemote, opened
from modelmill.steps.publish.gitops_settings import GitOps, Review
from modelmill.steps.publish.overlay import Edit, Finding, Promotion, edit, look, message
from modelmill.steps.publish.pull_requests import PullRequests, State

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a promotion goes on.

    Attributes:
        races: Lost races before it gives up; of racing writers one lands in every round.
        away: Attempts on a remote that does not answer.
        away_seconds: Wait before the second of them; it doubles.
        race_seconds: Most that is waited after the first lost race, by chance less; it doubles up to two seconds.
    """

    races: int = 100
    away: int = 4
    away_seconds: float = 2.0
    race_seconds: float = 0.1


class Outcome(StrEnum):
    """What became of a promotion in Git."""

    COMMITTED = "committed"
    PROPOSED = "proposed"
    """A pull request is open for it."""
    UNCHANGED = "unchanged"
    """The branch says so already."""
    NEWER = "newer"
    """The branch says something newer of this channel."""
    HELD = "held back"
    """A person keeps it out: a pin in Git, or a pull request that was closed."""


@dataclass(frozen=True)
class Committed:
    """A promotion in Git.

    Attributes:
        outcome: What became of it.
        words: The same for people.
        commit: The commit that was made, or that was found.
        pull_request: Its address.
    """

    outcome: Outcome
    words: str
    commit: str | None = None
    pull_request: str | None = None

    def facts(self) -> dict[str, JSON]:
        """For a run's record."""
        return {"outcome": self.outcome.value, "commit": self.commit, "pull_request": self.pull_request}


def require_ready(
    settings: GitOps,
    model: str,
    channel: str,
    credentials: Credentials | None = None,
    patience: Patience | None = None,
) -> None:
    """Check all of a promotion that can be checked before the channel moves; nothing is pushed.

    The remote answers, has the branch and an overlay for promotions to that channel, and a commit can be made there,
    signed where there is a key. Whether the server takes a push, the push alone tells.

    Args:
        settings: The repository.
        model: The model's name in the registry.
        channel: The channel.
        credentials: For the remote; the environment's where left out.
        patience: How long to go on.

    Raises:
        DeploymentError: The settings, the overlay or a key are wrong.
        GitError: The remote is away, or refuses.
    """
    try:
        used = credentials or Credentials.from_environment(os.environ)
        with opened(settings, used) as remote:
            base = _patiently(patience or Patience(), lambda: _base(remote, settings))
            found = look(model, channel, settings.folder(model, channel), lambda path: remote.read(base, path))
            remote.commit(base, {found.place: found.written or b""}, "A commit that goes nowhere")
    except ModelmillError as problem:
        problem.what = f"nothing was moved, neither the channel nor Git: {problem.what}"
        raise


def follow(store: Store, settings: GitOps, done: Moved, progress: Progress, *, back: bool = False) -> Committed:
    """Commit what a channel names after a move; an error says that the registry has moved, and how Git comes after.

    Args:
        store: Where the registry and the bundle lie.
        settings: The repository.
        done: The move.
        progress: Told what became of it.
        back: Whether it was a rollback: one without its target, given once more, would go back once more.

    Raises:
        ModelmillError: As `release`.
    """
    found = done.channel
    try:
        return release(store, settings, found.model, found.channel, progress)
    except ModelmillError as problem:
        move = f"rollback {found.model} {found.channel} --to" if back else f"promote {found.model} {found.channel}"
        again = f"modelmill channel {move} {found.bundle}"
        problem.what = f"the registry's channel names {found.bundle} now, and Git does not: {problem.what}"
        problem.fix = f"{problem.fix or 'mend that'}. Then, with the same --store and --deployment: {again}"
        raise


def release(
    store: Store,
    settings: GitOps,
    model: str,
    channel: str,
    progress: Progress,
    credentials: Credentials | None = None,
    patience: Patience | None = None,
) -> Committed:
    """Commit what a channel names now.

    Args:
        store: Where the registry and the bundle lie.
        settings: The repository.
        model: The model's name in the registry.
        channel: A channel that something was promoted to.
        progress: Told what became of it.
        credentials: For the remote; the environment's where left out.
        patience: How long to go on.

    Raises:
        DeploymentError: The settings, the overlay or a key are wrong.
        GitError: The remote is away, refuses, or is protected.
        StoreError: The store is away, or the bundle is gone.
    """
    promotion = _promotion(store, settings, model, channel, progress)
    if "://" not in promotion.uri:
        folder = f"the bundle lies in {promotion.uri}, a folder of this machine"
        progress.fact(f"git: {folder}, which no cluster reads: for one, promote from a store s3://BUCKET/PREFIX")
    used = credentials or Credentials.from_environment(os.environ)
    with opened(settings, used) as remote:
        done = _Writer(remote, settings, used, promotion, patience or Patience()).write()
    progress.fact(f"git: {done.words}")
    return done


def _promotion(store: Store, settings: GitOps, model: str, channel: str, progress: Progress) -> Promotion:
    found = registry.show_channel(store, model, channel)
    record = registry.served(store, found) if found else None
    if found is None or record is None:
        what = f"the channel {channel} of {model} names no registered bundle"
        raise StoreError(what, where=store.uri, fix="run the recipe again, or promote another bundle")
    failing = promotable.failing_lanes(store.get_artifact(record.artifact, progress), record.bundle)
    came, uri = found.arrived, store.artifact_uri(record.artifact)
    return Promotion(
        model=model,
        channel=channel,
        move=came.number,
        kind=came.kind.value,
        bundle=found.bundle,
        uri=uri,
        verdict="overridden" if failing else "pass",
        report=f"{uri}/report.html",
        by=came.by or f"run {came.run}",
        why=came.why,
        image=settings.image,
    )


def _base(remote: GitRemote, settings: GitOps) -> str:
    """The commit that the branch names now."""
    base = remote.fetch(settings.branch)
    if base is None:
        what = f"the Git repository has no branch {settings.branch}"
        fix = "make it, with an overlay or empty but for one commit; or name another in git.branch"
        raise DeploymentError(what, where=settings.remote, fix=fix)
    return base


def _patiently(patience: Patience, attempt: Callable[[], T]) -> T:
    """What an attempt gives, made again while the remote does not answer."""
    for number in range(patience.away - 1):
        try:
            return attempt()
        except AwayError:
            time.sleep(patience.away_seconds * 2**number * random.uniform(0.5, 1))
    return attempt()


class _Writer:
    """One promotion on its way into a repository."""

    def __init__(
        self,
        remote: GitRemote,
        settings: GitOps,
        credentials: Credentials,
        promotion: Promotion,
        patience: Patience,
    ) -> None:
        self._remote, self._settings, self._credentials = remote, settings, credentials
        self._promotion, self._patience = promotion, patience
        self._folder = settings.folder(promotion.model, promotion.channel)
        # Two writers of one promotion would make the very same commit in the same second, and neither could tell
        # whose landed.
        self._message = f"{message(promotion)}\nWriter: {secrets.token_hex(4)}\n"
        self._made: str | None = None
        """The commit whose push may have landed though nobody said so."""

    def write(self) -> Committed:
        lost = 0
        while True:
            done = _patiently(self._patience, self._attempt)
            if done is not None:
                return done
            lost += 1
            if lost >= self._patience.races:
                what = f"others were first in {lost} attempts to push to {self._settings.branch}"
                raise GitError(what, where=self._settings.remote, fix="run again")
            time.sleep(random.uniform(0, min(2.0, self._patience.race_seconds * 2 ** min(lost, 10))))

    def _attempt(self) -> Committed | None:
        """One round; None where another writer came first."""
        branch, promotion = self._settings.branch, self._promotion
        base = _base(self._remote, self._settings)
        found = edit(promotion, self._folder, lambda path: self._remote.read(base, path))
        if found.finding is not Finding.TO_WRITE:
            return self._found(found, base)
        review = self._settings.reviewed(promotion.channel)
        if review is not None:
            return self._propose(review, base, found)
        self._made = self._remote.commit(base, found.files, self._message)
        if not self._remote.push(self._made, branch):
            return None
        return Committed(Outcome.COMMITTED, f"{branch} has {promotion.bundle} by the commit {self._made}", self._made)

    def _found(self, found: Edit, base: str) -> Committed:
        outcome = {
            Finding.SAME: Outcome.UNCHANGED,
            Finding.NEWER: Outcome.NEWER,
            Finding.PINNED: Outcome.HELD,
        }[found.finding]
        if found.finding is Finding.SAME and base == self._made:
            outcome = Outcome.COMMITTED
        return Committed(outcome, found.words, base if found.finding is Finding.SAME else None)

    def _propose(self, review: Review, base: str, found: Edit) -> Committed | None:
        """A branch of its own, made once, and its pull request."""
        promotion = self._promotion
        branch = f"modelmill/{promotion.model}-{promotion.channel}-{promotion.move}-{promotion.bundle[7:19]}"
        commit = self._remote.fetch(branch)
        if commit is None:
            commit = self._remote.commit(base, found.files, self._message)
            if not self._remote.push(commit, branch, create=True):
                return None
        title, _, text = message(promotion).partition("\n")
        asked = PullRequests(review, self._credentials, self._patience.away_seconds / 2).opened(
            branch, self._settings.branch, title, text.strip()
        )
        if asked.state is State.OPEN:
            return Committed(Outcome.PROPOSED, f"to be merged by a person: {asked.url}", commit, asked.url)
        words = f"held back in Git: the pull request {asked.url} is {asked.state.value}"
        return Committed(Outcome.HELD, words, None, asked.url)
