"""A finished run as its report shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelmill.core.contract import JSON
from modelmill.core.evidence import LaneEvidence, Searched
from modelmill.core.registry_documents import Channel
from modelmill.reports import view as reports
from modelmill.reports.unrendered import rendered
from modelmill.reports.view import unavailable_in_words
from modelmill.runners.result import RunDocument, warnings_of


def run_view(
    document: RunDocument,
    lanes: Sequence[LaneEvidence],
    recipe: Mapping[str, JSON],
    registered: Channel | None = None,
) -> reports.RunView:
    """The report's view of a run.

    Args:
        document: The run, finished.
        lanes: Its verdicts.
        recipe: The recipe as it was run.
        registered: The channel, with its history.
    """
    return reports.RunView(
        title=document.recipe,
        run=document.run,
        status=reports.RunStatus(document.status.value),
        started=document.started_at,
        finished=document.finished_at,
        lanes=list(lanes),
        steps=[
            reports.StepRow.model_validate(row.model_dump(include=set(reports.StepRow.model_fields)))
            for row in document.steps
        ],
        recipe=dict(recipe),
        searches=_searches(document),
        bundle=document.bundle_digest,
        channel=document.channel,
        registered=registered,
        warnings=[
            *(unavailable_in_words(name, why) for name, why in document.unavailable.items()),
            *warnings_of(document.steps),
            *([document.held] if document.held else []),
        ],
    )


def _searches(document: RunDocument) -> dict[str, Searched]:
    """What each lane's search tried and found, by target; a lane that chose by rule has none."""
    return {
        row.target: Searched.model_validate(
            {name: row.facts[name] for name in Searched.model_fields if name in row.facts}
        )
        for row in document.steps
        if row.target and row.facts.get("tried")
    }


def page(
    document: RunDocument,
    lanes: Sequence[LaneEvidence],
    recipe: Mapping[str, JSON],
    registered: Channel | None = None,
) -> str:
    """The report of a run: a whole HTML document, also where it could not be rendered; the run stands.

    Args: As `run_view`.
    """
    # What draws a page takes longer to load than a task that is found in the store takes to run.
    from modelmill.reports.render import render_run

    return rendered(lambda: render_run(run_view(document, lanes, recipe, registered)), document.recipe)
