"""Evidence and runs as one self-contained HTML file, for people.

Nothing of the file is fetched and nothing in it runs but its own script, which the content security policy names by
digest: text from data is escaped, and would not run if it were not. Equal input gives equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from modelmill.core.evidence import LaneEvidence
from modelmill.reports import lane_page, lineage, numbers, run_page, search_section
from modelmill.reports.plain import plain
from modelmill.reports.recipe_text import recipe_yaml
from modelmill.reports.view import RunStatus, RunView

_STATUS = {
    RunStatus.PROMOTED: ("Promoted", "pass"),
    RunStatus.HELD: ("Held back", "inconclusive"),
    RunStatus.REFUSED: ("Refused", "fail"),
    RunStatus.INCONCLUSIVE: ("Inconclusive", "inconclusive"),
    RunStatus.ASSEMBLED: ("Assembled", "pass"),
}


def render_lane(evidence: LaneEvidence) -> str:
    """The report of one lane: verdict, accuracy, speed, size and the rows that changed.

    Args:
        evidence: The gate's verdict document.

    Returns:
        A whole HTML document.
    """
    return _render("lane.html.j2", lanes=[lane_page.lane(evidence, "lane-1")], title=evidence.target)


def render_run(run: RunView) -> str:
    """The report of a run: every lane's verdict and evidence, the steps, the lineage and the recipe.

    Args:
        run: What ran and what it found.

    Returns:
        A whole HTML document.
    """
    targets = [evidence.target for evidence in run.lanes]
    edges = run.lineage
    word, tone = _STATUS[run.status]
    return _render(
        "run.html.j2",
        title=run.title,
        run=run,
        word=word,
        tone=tone,
        headline=run_page.headline(run),
        lanes=[lane_page.lane(evidence, f"lane-{index}") for index, evidence in enumerate(run.lanes, 1)],
        moves=run_page.channel_moves(run.registered),
        searches=search_section.sections(run.searches),
        steps=run_page.step_lines(run.steps, targets),
        arcs=lineage.arcs(run.steps, edges, targets),
        artifacts=run_page.artifacts(run.steps, edges),
        sources=run_page.sources(run.recipe),
        recipe=recipe_yaml(run.recipe) if run.recipe else "",
    )


def _render(template: str, **context: object) -> str:
    folder = resources.files("modelmill.reports") / "templates"
    css, js = ((folder / name).read_text("utf-8") for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; style-src '{_source(css)}'; script-src '{_source(js)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        loader=PackageLoader("modelmill.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.globals["n"] = numbers
    # The two files are the project's own; data never comes this way.
    return environment.get_template(template).render(css=Markup(css), js=Markup(js), policy=policy, **context)


def _source(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _finalize(value: object) -> object:
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value
