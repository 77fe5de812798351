"""The search for the fastest candidate, as the report shows it."""

from __future__ import annotations

import realistic_evidence
from html_page import Page
from modelmill.core.evidence import Searched, Tried
from modelmill.reports.numbers import size
from modelmill.reports.render import render_run
from modelmill.reports.search_section import points_of, sections, unbeaten
from modelmill.runners.result import RunDocument, Status, StepRow
from modelmill.runners.view import run_view

ROWS = [
    Tried(
        name="fast <b>",
        chosen=True,
        passes=True,
        gain=3.0,
        gain_ci=(2.875, 3.125),
        size_bytes=26,
        deviation=0.1,
        drop_points=0.4,
        flips=2,
    ),
    Tried(name="slow", passes=True, gain=1.0, size_bytes=100, deviation=0.0, drop_points=0.0, flips=0),
    Tried(name="beaten", passes=False, failure="its size", gain=0.9, size_bytes=100, deviation=0.0, drop_points=0.1),
    Tried(name="crashed", failure="it died of SIGSEGV"),
    Tried(name="looked at", gain=2.0, size_bytes=26, deviation=0.2),
]


def test_the_front_is_what_no_other_beats() -> None:
    assert [point.name for point in unbeaten(points_of(ROWS))] == ["fast <b>", "slow"]


def test_one_that_is_smaller_and_else_alike_beats() -> None:
    small = Tried(name="small", passes=True, gain=2.0, size_bytes=26, drop_points=0.2)
    large = small.model_copy(update={"name": "large", "size_bytes": 100})
    assert [point.name for point in unbeaten(points_of([large, small]))] == ["small"]
    # The largest is unbeaten while it is the fastest, the smallest while it is small.
    faster = large.model_copy(update={"name": "faster", "gain": 2.1})
    assert [point.name for point in unbeaten(points_of([faster, large, small]))] == ["faster", "small"]


def test_why_one_was_chosen_and_what_to_know_of_it_stand_in_the_page() -> None:
    found = Searched(tried=ROWS, reason="the fastest <i>one</i>", notes=["the search ended after 3 trials, its budget"])
    document = render_run(realistic_evidence.run().model_copy(update={"searches": {"cpu-int8": found}}))
    assert "<i>one" not in document
    words = " ".join(Page(document).words)
    assert "the fastest <i>one</i>" in words
    assert "the search ended after 3 trials, its budget" in words
    assert f"larger dots are larger files ({size(26)} to {size(100)})" in words


def test_what_a_step_found_stands_in_the_page_of_its_run() -> None:
    facts = {
        "reason": "the fastest candidate",
        "notes": ["60 tune rows cannot show it"],
        "tried": [row.model_dump(mode="json") for row in ROWS],
        "seconds": 3.0,
    }
    row = StepRow(
        name="calibrate-quantize", part="choose", target="cpu-int8", key="sha256:0", digest="sha256:0",
        reproducible=False, outputs={}, digests={}, inputs={}, cached=False, seconds=1.0, peak_rss_bytes=1, facts=facts,
    )  # fmt: skip
    by_rule = row.model_copy(update={"target": "by-rule", "facts": {"reason": "it is the only allowed candidate"}})
    run = RunDocument(
        run="r",
        recipe="demo",
        recipe_digest="sha256:0",
        status=Status.REFUSED,
        started_at="2026-11-22T10:00:00Z",
        steps=[row, by_rule],
    )
    view = run_view(run, [realistic_evidence.lane()], {})
    assert set(view.searches) == {"cpu-int8"}
    words = " ".join(Page(render_run(view)).words)
    for told in ("fast <b>", "it died of SIGSEGV", "the fastest candidate", "60 tune rows cannot show it"):
        assert told in words


def test_all_candidates_stand_in_the_page_and_their_names_are_text() -> None:
    run = realistic_evidence.run().model_copy(update={"searches": {"cpu-int8": Searched(tried=ROWS)}})
    document = render_run(run)
    page = Page(document)
    assert page.unbalanced == []
    assert "fast <b>" not in document
    words = " ".join(page.words)
    for row in ROWS:
        assert row.name in words
    assert "it died of SIGSEGV" in words
    assert "not judged" in words
    assert "3.00× (2.88 to 3.12)" in words


def test_a_single_judged_candidate_has_no_picture() -> None:
    (section,) = sections({"x": Searched(tried=[ROWS[0], ROWS[3]])})
    assert section.picture is None
