"""The search for the fastest candidate, as the report shows it."""

from __future__ import annotations

import realistic_evidence
from html_page import Page
from modelmill.core.evidence import Tried
from modelmill.reports.render import render_run
from modelmill.reports.search_section import points_of, sections, unbeaten

ROWS = [
    Tried(name="fast <b>", chosen=True, passes=True, gain=3.0, size_bytes=26, deviation=0.1, drop_points=0.4, flips=2),
    Tried(name="slow", passes=True, gain=1.0, size_bytes=100, deviation=0.0, drop_points=0.0, flips=0),
    Tried(name="beaten", passes=False, failure="its size", gain=0.9, size_bytes=100, deviation=0.0, drop_points=0.1),
    Tried(name="crashed", failure="it died of SIGSEGV"),
    Tried(name="looked at", gain=2.0, size_bytes=26, deviation=0.2),
]


def test_the_front_is_what_no_other_beats() -> None:
    assert [point.name for point in unbeaten(points_of(ROWS))] == ["fast <b>", "slow"]


def test_all_candidates_stand_in_the_page_and_their_names_are_text() -> None:
    run = realistic_evidence.run().model_copy(update={"searches": {"cpu-int8": ROWS}})
    document = render_run(run)
    page = Page(document)
    assert page.unbalanced == []
    assert "fast <b>" not in document
    words = " ".join(page.words)
    for row in ROWS:
        assert row.name in words
    assert "it died of SIGSEGV" in words
    assert "not judged" in words


def test_a_single_judged_candidate_has_no_picture() -> None:
    (section,) = sections({"x": [ROWS[0], ROWS[3]]})
    assert section.picture is None
