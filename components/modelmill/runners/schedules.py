"""Recurring runs on Kubeflow: made, shown and taken away through kfp's client.

A schedule is a recurring run of a pipeline version. The pipeline bears the recipe's name, and the version the digest of
what was compiled, so that equal content is one version and a schedule says what it runs. Recurring runs of others are
listed and never changed: those made here say so in their description.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field

from modelmill import recipe as recipes
from modelmill.core.contract import JSON, Closed
from modelmill.core.errors import UsageError
from modelmill.recipe import Located
from modelmill.runners import cron as crons
from modelmill.runners.cron import Cron
from modelmill.runners.kubeflow_client import Server, talking
from modelmill.runners.parameters import parameters_of

_MADE_HERE = "Made by modelmill schedule: "
_PAGE = 100
_RUNS_SHOWN = 5


class Outcome(StrEnum):
    """What became of a schedule that was asked for."""

    CREATED = "created"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


class RunRow(Closed):
    """One run that a schedule started."""

    id: str
    state: str | None = None
    started_at: str | None = None
    finished_at: str | None = None


class Schedule(Closed):
    """A recurring run."""

    name: str
    id: str
    cron: str | None = Field(description="five fields; as the server has it where modelmill did not write it")
    enabled: bool
    next_at: str | None = Field(None, description="by the cron expression in UTC; None where disabled or not known")
    catch_up: bool
    max_concurrency: int
    parameters: dict[str, JSON] = Field(default_factory=dict, description="what differs from the pipeline's defaults")
    pipeline_id: str | None = None
    version_id: str | None = None
    experiment_id: str | None = None
    namespace: str | None = None
    service_account: str | None = None
    created_at: str | None = None
    made_here: bool = Field(description="by modelmill schedule create")
    runs: list[RunRow] = Field(default_factory=list, description="the latest, the latest first")


@dataclass(frozen=True)
class Wanted:
    """A schedule to make.

    Attributes:
        name: The recurring run's.
        pipeline: The pipeline's name.
        summary: What it does, for people.
        package: What it is, compiled.
        cron: When.
        experiment: Groups the runs on the server's pages; made where it is not there.
        service_account: Of all the run's pods: Kubeflow has one identity a run.
        parameters: Values over the pipeline's defaults.
        enabled: Whether it starts runs.
        catch_up: Whether starts that were missed are made up for.
        max_concurrency: Runs at a time.
    """

    name: str
    pipeline: str
    summary: str
    package: bytes
    cron: Cron
    experiment: str
    service_account: str
    parameters: dict[str, JSON] = field(default_factory=dict)
    enabled: bool = True
    catch_up: bool = False
    max_concurrency: int = 1


def chosen(path: Path, overrides: Sequence[str]) -> tuple[Located, dict[str, JSON]]:
    """A recipe as it is compiled, and what is given to each run: those overrides that are parameters of the pipeline.

    Raises:
        RecipeError: The recipe or an override is wrong.
    """
    offered = {item.path: item for item in parameters_of(recipes.load(path).recipe)}
    wanted = {item.path: item for item in parameters_of(recipes.load(path, overrides).recipe)}
    paths = [override.partition("=")[0].strip() for override in overrides]
    given = [at for at in paths if at in offered and at in wanted and offered[at].type == wanted[at].type]
    compiled = [override for override, at in zip(overrides, paths, strict=True) if at not in given]
    return recipes.load(path, compiled), {wanted[at].name: wanted[at].default for at in given}


class Schedules:
    """The recurring runs of a server, or of one namespace of it.

    Methods raise `UsageError` where the server does not take something, `OrchestratorError` where it is away.
    """

    def __init__(self, server: Server) -> None:
        self._client, self._address, self._namespace = server.client, server.address, server.namespace

    def find(self, name: str) -> list[Schedule]:
        """All of a name: the server does not keep names apart."""
        return [item for item in self.all() if item.name == name]

    def all(self) -> list[Schedule]:
        """Every recurring run, by name."""
        with talking(self._address):
            listed = list(_pages(self._client.list_recurring_runs, "recurring_runs", namespace=self._namespace))
        return sorted((_schedule(item) for item in listed), key=lambda item: (item.name, item.id))

    def with_runs(self, schedule: Schedule) -> Schedule:
        """A schedule with the latest runs that it started."""
        with talking(self._address):
            answer = self._client.list_runs(
                page_size=_RUNS_SHOWN,
                sort_by="created_at desc",
                namespace=self._namespace,
                filter=_equals("recurring_run_id", schedule.id),
            )
        runs = [
            RunRow(id=run.run_id, state=run.state, started_at=_time(run.created_at), finished_at=_time(run.finished_at))
            for run in answer.runs or []
        ]
        return schedule.model_copy(update={"runs": runs})

    def create(self, wanted: Wanted) -> tuple[Schedule, Outcome]:
        """Make a schedule, or make the one of its name what is wanted; nothing is done where it is so already.

        The new one is made before the old one is taken away: whatever happens between, runs go on. Two that start
        together do each step once.

        Raises:
            UsageError: A recurring run of that name was made by someone else.
        """
        present = self.find(wanted.name)
        for other in present:
            if not other.made_here:
                what = f"a recurring run {wanted.name!r} is there that modelmill did not make"
                raise UsageError(what, where="--name", fix="choose another name, or delete that one on Kubeflow's page")
        with talking(self._address):
            experiment = self._client.create_experiment(wanted.experiment, namespace=self._namespace).experiment_id
            pipeline, version = self._uploaded(wanted)
        same = [item for item in present if _is(item, wanted, experiment, version)]
        if same:
            self._delete([item for item in present if item != same[0]])
            return same[0], Outcome.UNCHANGED
        with talking(self._address):
            made = self._client.create_recurring_run(
                experiment_id=experiment,
                job_name=wanted.name,
                description=f"{_MADE_HERE}{wanted.summary}",
                cron_expression=wanted.cron.kubeflow,
                max_concurrency=wanted.max_concurrency,
                no_catchup=not wanted.catch_up,
                params=wanted.parameters,
                pipeline_id=pipeline,
                version_id=version,
                enabled=wanted.enabled,
                service_account=wanted.service_account,
            )
        self._delete(present)
        return _schedule(made), Outcome.REPLACED if present else Outcome.CREATED

    def delete(self, name: str) -> list[Schedule]:
        """Take away what modelmill made under a name; what was taken away.

        Raises:
            UsageError: There is no such recurring run, or someone else made it.
        """
        found = self.named(name)
        foreign = [item for item in found if not item.made_here]
        if foreign:
            what = f"the recurring run {name!r} was not made by modelmill"
            raise UsageError(what, where="NAME", fix="delete it on Kubeflow's page")
        self._delete(found)
        return found

    def named(self, name: str) -> list[Schedule]:
        """The recurring runs of a name, at least one.

        Raises:
            UsageError: There is none.
        """
        everything = self.all()
        found = [item for item in everything if item.name == name]
        if not found:
            known = ", ".join(dict.fromkeys(item.name for item in everything))
            what = f"there is no recurring run {name!r}"
            raise UsageError(what, where="NAME", fix=f"those that are there: {known or 'none'}")
        return found

    def _delete(self, schedules: Sequence[Schedule]) -> None:
        with talking(self._address):
            for item in schedules:
                self._client.delete_recurring_run(item.id)

    def _uploaded(self, wanted: Wanted) -> tuple[str, str]:
        """The ids of the pipeline and of its version with this content; uploaded where it is not there."""
        version = hashlib.sha256(wanted.package).hexdigest()[:16]
        named = _equals("display_name", wanted.pipeline)
        pipelines = self._client.list_pipelines(namespace=self._namespace, filter=named).pipelines
        if pipelines:
            pipeline = pipelines[0].pipeline_id
            same = _equals("display_name", version)
            versions = self._client.list_pipeline_versions(pipeline, filter=same).pipeline_versions
            if versions:
                return pipeline, versions[0].pipeline_version_id
        else:
            empty = {"display_name": wanted.pipeline, "description": wanted.summary}
            empty |= {"namespace": self._namespace} if self._namespace else {}
            pipeline = self._client.pipelines.pipeline_service_create_pipeline(pipeline=empty).pipeline_id
        with tempfile.TemporaryDirectory(prefix="modelmill-") as folder:
            package = Path(folder) / "pipeline.yaml"
            package.write_bytes(wanted.package)
            made = self._client.upload_pipeline_version(str(package), version, pipeline_id=pipeline)
        return pipeline, made.pipeline_version_id


def _equals(key: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": value}]})


def _pages(listing: Callable[..., Any], items: str, **given: Any) -> Iterator[Any]:
    token = ""
    while True:
        page = listing(page_token=token, page_size=_PAGE, **given)
        yield from getattr(page, items) or []
        token = page.next_page_token
        if not token:
            return


def _schedule(item: Any) -> Schedule:
    """A recurring run as kfp's client gives it."""
    written = item.trigger.cron_schedule.cron if item.trigger and item.trigger.cron_schedule else None
    cron = crons.from_kubeflow(written) if written else None
    enabled = item.status == "ENABLED"
    following = cron.after(datetime.now(UTC)) if cron and enabled else None
    version = item.pipeline_version_reference
    return Schedule(
        name=item.display_name,
        id=item.recurring_run_id,
        cron=cron.text if cron else written,
        enabled=enabled,
        next_at=_time(following),
        catch_up=not item.no_catchup,
        max_concurrency=int(item.max_concurrency or 1),
        parameters=(item.runtime_config.parameters or {}) if item.runtime_config else {},
        pipeline_id=version.pipeline_id if version else None,
        version_id=version.pipeline_version_id if version else None,
        experiment_id=item.experiment_id,
        namespace=item.namespace or None,
        service_account=item.service_account or None,
        created_at=_time(item.created_at),
        made_here=(item.description or "").startswith(_MADE_HERE),
    )


def _time(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def _is(item: Schedule, wanted: Wanted, experiment: str, version: str) -> bool:
    present = (item.version_id, item.experiment_id, item.cron, item.enabled, item.catch_up, item.max_concurrency)
    asked = (version, experiment, wanted.cron.text, wanted.enabled, wanted.catch_up, wanted.max_concurrency)
    return (present, item.service_account, item.parameters) == (asked, wanted.service_account, wanted.parameters)
