"""The HTML of reports, without a browser."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest

import realistic_evidence
from html_page import Page
from modelmill.core.evidence import Verdict
from modelmill.reports.lane_page import matrix
from modelmill.reports.render import render_lane, render_run
from modelmill.reports.view import RunStatus
from realistic_evidence import LABELS

_EXTERNAL = ("src", "srcset", "data", "poster", "action", "formaction", "background", "manifest", "ping", "xlink:href")


DOCUMENTS = {
    "run": lambda: render_run(realistic_evidence.run()),
    "lane": lambda: render_lane(realistic_evidence.lane()),
    "few": lambda: render_lane(realistic_evidence.lane(flips=0.03, classes=6)),
    "minimal": lambda: render_lane(realistic_evidence.minimal()),
    "hostile": lambda: render_run(realistic_evidence.hostile()),
}


@pytest.fixture(scope="module", params=DOCUMENTS)
def document(request: pytest.FixtureRequest) -> str:
    return DOCUMENTS[request.param]()


def test_every_element_is_closed_and_every_id_is_one(document: str) -> None:
    page = Page(document)
    assert page.unbalanced == []
    assert len(page.ids()) == len(set(page.ids()))


def test_every_reference_inside_the_page_has_its_target(document: str) -> None:
    page = Page(document)
    named = {attributes["href"][1:] for _, attributes in page.elements if attributes.get("href", "").startswith("#")}
    named |= {name for _, attributes in page.elements for name in attributes.get("aria-labelledby", "").split()}
    named |= {attributes["data-table"] for _, attributes in page.elements if "data-table" in attributes}
    assert named <= set(page.ids())


def test_nothing_is_fetched_and_only_links_leave_the_page(document: str) -> None:
    page = Page(document)
    for tag, attributes in page.elements:
        assert not [name for name in _EXTERNAL if name in attributes], tag
        href = attributes.get("href", "#")
        assert href.startswith(("#", "data:,")) or (tag == "a" and href.startswith("https://")), href
        assert not [name for name in attributes if name.startswith("on")], tag
        assert "style" not in attributes, tag
    style = document[document.index("<style>") : document.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_names_the_one_script_and_the_one_style_by_digest(document: str) -> None:
    page = Page(document)
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert [tag for tag, _ in page.elements].count("style") == 1


def test_tables_have_captions_and_headings_do_not_skip_a_level(document: str) -> None:
    page = Page(document)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption")
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(
        "aria-label" in a or "aria-hidden" in a
        for tag, a in page.elements
        if tag == "svg" and "class" in a and a["class"].split()[0] in {"plot", "arcs", "icon", "symbols"}
    )


@pytest.mark.parametrize("name", DOCUMENTS)
def test_equal_input_gives_equal_bytes(name: str) -> None:
    assert DOCUMENTS[name]() == DOCUMENTS[name]()


def test_a_recipe_reads_the_same_whatever_the_order_of_its_keys() -> None:
    run = realistic_evidence.run()
    turned = dict(reversed(run.recipe.items()))
    assert render_run(run.model_copy(update={"recipe": turned})) == render_run(run)
    assert "name: banking77-minilm\ntask: text-classification\nmodel:\n  source: package:" in render_run(run)


def test_a_run_of_77_classes_with_200_disagreements_stays_below_400_kilobytes() -> None:
    run = realistic_evidence.run()
    refused = run.lanes[1].model_copy(
        update={"disagreements": (run.lanes[1].disagreements * 2)[:200], "disagreement_count": 260}
    )
    assert len(render_run(run.model_copy(update={"lanes": [run.lanes[0], refused]})).encode()) < 400_000
    assert len(render_lane(refused).encode()) < 250_000


def test_long_texts_are_cut_and_the_cut_is_told() -> None:
    lane = realistic_evidence.lane()
    long = lane.disagreements[0].model_copy(update={"text": "word " * 5000})
    page = render_lane(lane.model_copy(update={"disagreements": [long] * 200}))
    assert "… (24,600 more characters)" in page
    assert len(page.encode()) < 300_000


def test_the_verdict_comes_before_everything_else_and_in_words() -> None:
    text = Page(render_run(realistic_evidence.run())).text
    order = [
        "Refused. 1 of 2 targets passed the gate. Nothing was promoted: the channel staging is as it was.",
        "cpu-int8 Passed",
        "Every check passed:",
        "edge-int8 Failed",
        "Failed: the candidate loses 4.35 points",
        "What was run on what",
        "Checks",
        "Latency",
        "Throughput",
        "Size, load and memory",
        "Classes that changed",
        "Rows on which the models disagree",
        "Steps",
        "Lineage",
        "Recipe",
        "Method",
    ]
    places = [text.index(words, text.index("To bear in mind") if place > 4 else 0) for place, words in enumerate(order)]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (RunStatus.PROMOTED, "Promoted. 1 of 2 targets passed the gate. The bundle is in the channel staging."),
        (RunStatus.HELD, "Held back. 1 of 2 targets passed the gate. The bundle is registered; a pin keeps"),
        (RunStatus.REFUSED, "Refused. 1 of 2 targets passed the gate. Nothing was promoted"),
        (RunStatus.INCONCLUSIVE, "Inconclusive. 1 of 2 targets passed the gate. The evidence decides neither way"),
        (RunStatus.ASSEMBLED, "Assembled. 1 of 2 targets passed the gate. This report was written when the bundle"),
    ],
)
def test_every_status_is_said_in_a_sentence(status: RunStatus, words: str) -> None:
    assert words in Page(render_run(realistic_evidence.run().model_copy(update={"status": status}))).text


def test_numbers_of_the_evidence_stand_in_the_page() -> None:
    lane = realistic_evidence.lane("edge-int8", flips=0.05, speed=1.31, seed=3)
    text = Page(render_lane(lane)).text
    assert lane.verdict is Verdict.FAIL
    assert f"{100 * lane.candidate:.2f} %" in text
    assert f"{lane.drop_points_ci[0]:.2f} to {lane.drop_points_ci[1]:.2f}" in text
    assert f"{lane.disagreement_count} of 3,080 rows: {lane.lost} lost, {lane.gained} gained" in text
    for cell in lane.measurements.latency:
        assert f"{cell.speedup:.2f}× ({cell.speedup_ci[0]:.2f} to {cell.speedup_ci[1]:.2f})" in text
    assert "fused.Attention 6" in text


def test_champion_and_challenger_stand_side_by_side_and_one_that_is_gone_says_why() -> None:
    page = Page(render_lane(realistic_evidence.lane())).text
    start = page.index("Champion and challenger")
    shown = page[start : page.index("Latency", start)]
    assert "Champion: served" in page
    assert "+0.26 −0.05 to 0.58 22 14" in shown
    assert "Reference: served" not in page
    assert "is gone from the store" in shown
    assert "evaluation rows' classes lie 0.094 from those of what the channel serves" in page
    assert "Champion and challenger" not in Page(render_lane(realistic_evidence.minimal())).text


def test_the_channels_history_is_shown_newest_first_with_who_and_why() -> None:
    page = Page(render_run(realistic_evidence.run())).text
    start = page.index("The channel staging of banking77")
    shown = page[start : page.index("Steps", start)]
    assert "where errors at night pinned it" in shown
    assert "The last 10 of 22 entries" in shown
    order = ["promoted by hand", "reference pinned", "held back", "rolled back", "published"]
    assert sorted(order, key=shown.index) == order
    assert "none that passes: overridden errors at night" in shown
    assert "run nightly-17" in shown
    assert "run nightly-1 " not in shown
    bare = realistic_evidence.run().model_copy(update={"registered": None})
    assert "The channel staging of" not in Page(render_run(bare)).text


def test_a_matrix_shows_the_changes_between_few_classes_and_none_shows_scattered_ones() -> None:
    lane = realistic_evidence.lane(flips=0.03, classes=6)
    found = matrix(lane)
    assert found is not None
    assert sorted(found.labels) == sorted(LABELS[:6])
    assert found.shown == found.whole == lane.disagreement_count
    kinds = Counter(kind for row in found.cells for cell in row for kind in cell.elements())
    assert (kinds["lost"], kinds["gained"]) == (lane.lost, lane.gained)
    first, second = (found.labels.index(label) for label in LABELS[:2])
    rows = [item.rows for item in lane.confusions if (item.baseline, item.candidate) == (LABELS[0], LABELS[1])]
    assert found.cells[first][second].total() == sum(rows) > 5
    assert f"−{found.cells[first][second]['lost']}" in Page(render_lane(lane)).text
    scattered = [
        item.model_copy(update={"reference": f"r{i}", "baseline": f"b{i}", "candidate": f"c{i}", "rows": 1})
        for i, item in enumerate(realistic_evidence.lane().confusions)
    ]
    assert matrix(lane.model_copy(update={"confusions": scattered})) is None


def test_the_least_evidence_makes_a_page_without_empty_sections() -> None:
    page = Page(render_lane(realistic_evidence.minimal()))
    assert "Latency" not in [word.strip() for word in page.words[:-40]]
    assert "No class has another number of right answers than before." in page.text
    assert "NaN" not in page.text
    assert "nan" not in page.text.split()


def test_a_run_without_steps_lanes_or_recipe_is_a_page_too() -> None:
    bare = realistic_evidence.run().model_copy(update={"lanes": [], "steps": [], "recipe": {}, "warnings": []})
    page = Page(render_run(bare))
    assert page.unbalanced == []
    assert "No lane was judged in this run." in page.text
    assert "Lineage" not in page.text


def test_planted_markup_is_text_and_overrides_of_direction_are_shown() -> None:
    document = render_run(realistic_evidence.hostile())
    assert "<script>window" not in document
    assert "<img" not in document
    assert "\x00" not in document
    assert "\u202e" not in document
    assert "{{ 7*7 }}" in document
    assert "<script>window.planted=1;alert(1)</script><img src=x" in Page(document).text


def test_texts_left_out_by_the_recipe_are_left_out_and_said_to_be() -> None:
    lane = realistic_evidence.lane()
    bare = [row.model_copy(update={"text": None}) for row in lane.disagreements]
    text = Page(render_lane(lane.model_copy(update={"disagreements": bare}))).text
    assert "Texts are left out where the recipe does not ask for them." in text
    assert "Why was my" not in text
