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
from dataclasses import dataclass
from enum import StrEnum

from modelmill.core import promotable, registry
from modelmill.core.contract import JSON
from modelmill.core.errors import DeploymentError, GitError, StoreError
from modelmill.core.progress import Progress
from modelmill.core.store import Store
from modelmill.steps.publish.git_credentials import Credentials
from modelmill.steps.publish.git_remote import AwayError, GitRemote, opened
from modelmill.steps.publish.gitops_settings import GitOps, Review
from modelmill.steps.publish.overlay import Edit, Finding, Promotion, edit, message
from modelmill.steps.publish.pull_requests import PullRequests, State


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
    used = credentials or Credentials.from_environment(os.environ)
    with opened(settings, used) as remote:
        done = _Writer(remote, settings, used, promotion, patience or Patience()).write()
    progress.fact(f"git: {done.words}")
    return done


def _promotion(store: Store, settings: GitOps, model: str, channel: str, progress: Progress) -> Promotion:
    found = registry.show_channel(store, model, channel)
    record = registry.find_bundle(store, model, found.bundle) if found else None
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
        lost = away = 0
        while True:
            try:
                done = self._attempt()
            except AwayError:
                away += 1
                if away >= self._patience.away:
                    raise
                time.sleep(self._patience.away_seconds * 2 ** (away - 1) * random.uniform(0.5, 1))
                continue
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
        base = self._remote.fetch(branch)
        if base is None:
            what = f"the Git repository has no branch {branch}"
            fix = "make it, with an overlay or empty but for one commit; or name another in git.branch"
            raise DeploymentError(what, where=self._settings.remote, fix=fix)
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
