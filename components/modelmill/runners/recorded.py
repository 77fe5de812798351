"""What the store keeps of a run between the processes of its tasks: its document, and its recipe by digest."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from modelmill.core import records
from modelmill.core.contract import Closed
from modelmill.core.documents import validate
from modelmill.core.errors import DeploymentError, RecipeError, StoreError
from modelmill.core.manifest import canonical
from modelmill.core.store import Store
from modelmill.deployment import Deployment, Prices
from modelmill.line import Job
from modelmill.recipe import Located, Recipe
from modelmill.runners.conclusion import recipe_digest, record_of
from modelmill.runners.containers import BEGIN, GIT_VARIABLE, KEYLESS_VARIABLE, MIRRORS_VARIABLE
from modelmill.runners.parameters import decoded
from modelmill.runners.result import RunDocument
from modelmill.steps.publish.gitops_settings import GitOps
from modelmill.steps.publish.mirror_settings import Mirrors
from modelmill.steps.publish.sign_settings import Keyless

_ATTEMPTS = 50

C = TypeVar("C", bound=Closed)


def read(store: Store, run: str) -> RunDocument:
    """The document of a run that has begun."""
    record = records.read_run(store, run)
    if record is None:
        what = f"the store knows no run {run}"
        raise StoreError(what, where=store.uri, fix=f"run its task {BEGIN} first")
    return RunDocument.model_validate(record.document)


def save(store: Store, document: RunDocument) -> None:
    """Keep a run's document, in place of the one before."""
    records.save_run(store, record_of(document))


def update(store: Store, run: str, change: Callable[[RunDocument], RunDocument]) -> RunDocument:
    """Change a run's document, whoever else changes it meanwhile; what it is then."""
    made: list[RunDocument] = []

    def changed(record: records.RunRecord) -> records.RunRecord:
        made.append(change(RunDocument.model_validate(record.document)))
        return record_of(made[-1])

    records.update_run(store, run, changed, attempts=_ATTEMPTS)
    return made[-1]


def keep_recipe(store: Store, recipe: Recipe) -> str:
    """Keep what a run does under the digest by which its other tasks ask for it; that digest."""
    digest = recipe_digest(recipe)
    store.create(_path(digest), canonical(recipe.model_dump(mode="json")))
    return digest


def _path(digest: str) -> str:
    return f"recipes/{digest.removeprefix('sha256:')}.json"


def job_of(
    store: Store,
    digest: str,
    run: str,
    mounts: Sequence[str] = (),
    folder: Path | None = None,
    prices: Prices | None = None,
) -> Job:
    """What a run was begun with: the recipe by its digest, the deployment by what this container was given."""
    document = store.read(_path(digest))
    if document is None:
        what = f"the store has no recipe {digest}"
        raise StoreError(what, where=store.uri, fix=f"run the task {BEGIN} of this run again")
    recipe = validate(Recipe, json.loads(document.content), f"recipe {digest}", RecipeError)
    if recipe_digest(recipe) != digest:
        what = f"the stored recipe is not the one that {digest} names"
        raise StoreError(what, where=store.uri, fix="start a new run")
    located = Located(recipe=recipe, folder=folder or Path("/"))
    deployment = Deployment(
        store=store.uri,
        mounts=list(mounts),
        prices=prices,
        git=_told(GitOps, GIT_VARIABLE),
        keyless=_told(Keyless, KEYLESS_VARIABLE),
        mirrors=_told(Mirrors, MIRRORS_VARIABLE),
    )
    return Job(located, deployment, run)


def _told(kind: type[C], variable: str) -> C | None:
    """A part of the deployment that this container was given, or None."""
    told = os.environ.get(variable)
    return validate(kind, decoded(told, variable), variable, DeploymentError) if told else None
