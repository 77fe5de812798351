"""Reports in headless Chromium."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

import pytest

import realistic_evidence
from browser import Browser, open_browser
from modelmill.reports.render import render_lane, render_run


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    documents = {
        "run": render_run(realistic_evidence.run()),
        "lane": render_lane(realistic_evidence.lane()),
        "few": render_lane(realistic_evidence.lane(flips=0.03, classes=6)),
        "minimal": render_lane(realistic_evidence.minimal()),
        "hostile": render_run(realistic_evidence.hostile()),
    }
    for name, document in documents.items():
        (folder / f"{name}.html").write_text(document, "utf-8")
    return {name: folder / f"{name}.html" for name in documents}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize(
    ("name", "width", "dark"),
    [
        *(("run", width, dark) for width in (360, 1280) for dark in (False, True)),
        *((name, width, False) for name in ("lane", "few", "minimal", "hostile") for width in (360, 1280)),
    ],
)
def test_a_report_opens_without_errors_requests_or_sideways_scrolling(
    browser: Browser, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    browser.requests()
    browser.show(pages[name], width=width, dark=dark)
    assert browser.errors() == []
    assert {address for address in browser.requests() if not address.startswith("data:")} == {pages[name].as_uri()}
    assert browser.run("return document.documentElement.scrollWidth") == width
    shown = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert shown == ("rgb(21, 23, 27)" if dark else "rgb(251, 250, 247)")
    if name != "hostile":
        browser.screenshot(f"report-{name}-{width}-{'dark' if dark else 'light'}")


def test_a_planted_script_does_nothing(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["hostile"])
    browser.run("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    assert browser.dialog() is None
    assert browser.run("return typeof window.planted") == "undefined"
    assert browser.run("return document.querySelectorAll('main script, main img, main iframe').length") == 0
    assert browser.run("return document.title").startswith("<script>window.planted=1;alert(1)</script>")
    assert browser.errors() == []


def test_a_script_that_came_through_unescaped_would_not_run(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(pages["lane"].read_text("utf-8").replace("<main", "<script>window.planted=1</script><main", 1))
    browser.show(broken)
    assert browser.run("return typeof window.planted") == "undefined"
    assert ["Content Security Policy" in error for error in browser.errors()] == [True]


def test_disagreements_are_filtered_by_words_and_by_kind(browser: Browser, pages: dict[str, Path]) -> None:
    lane = realistic_evidence.lane()
    browser.show(pages["lane"])
    visible = "filter((row) => row.offsetHeight > 0).length"
    shown = f"return [...document.querySelectorAll('#lane-1-table tbody tr')].{visible}"
    said = "return document.querySelector('form.filter output').textContent"
    setting = (
        "const item = document.querySelector('form.filter {}'); item.value = '{}'; "
        "item.dispatchEvent(new Event('input', {{bubbles: true}}))"
    )
    assert browser.run(shown) == len(lane.disagreements) > 50
    browser.run(setting.format("select", "lost"))
    assert browser.run(shown) == lane.lost
    assert browser.run(said) == f"{lane.lost} of {len(lane.disagreements)} rows"
    browser.run(setting.format("input", "PIN"))
    lost = [row for row in lane.disagreements if row.reference == row.baseline]
    named = [row for row in lost if "pin" in f"{row.text} {row.reference} {row.candidate}".lower()]
    assert browser.run(shown) == len(named) > 0
    browser.run(setting.format("input", "no such words"))
    assert browser.run(said) == f"0 of {len(lane.disagreements)} rows"


def test_without_scripts_every_row_is_there_and_the_filter_is_not(browser: Browser, pages: dict[str, Path]) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.show(pages["lane"])
        tree = browser.driver.execute_cdp_cmd("DOM.getDocument", {"depth": -1})["root"]["nodeId"]
        forms, rows = (
            browser.driver.execute_cdp_cmd("DOM.querySelectorAll", {"nodeId": tree, "selector": selector})["nodeIds"]
            for selector in ("form.filter[hidden]", "#lane-1-table tbody tr:not([hidden])")
        )
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert len(forms) == 1
    assert len(rows) == len(realistic_evidence.lane().disagreements)


def test_a_digest_shows_itself_whole_when_pressed(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["lane"])
    whole = realistic_evidence.lane().digests["baseline"]
    press = "const code = document.querySelector('code.digest'); code.click(); return code.textContent"
    assert browser.run(press) == whole
    assert browser.run(press) == whole.removeprefix("sha256:")[:12]


# WCAG 2.2, success criterion 1.4.3: 4.5 to 1 for text; 1.4.11: 3 to 1 for marks in pictures.
_CONTRAST = """
const light = (c) => {
  const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const [r, g, b] = c.match(/\\d+/g).slice(0, 3).map((v) => linear(v / 255));
  return .2126 * r + .7152 * g + .0722 * b;
};
const value = (name) => {
  const probe = document.createElement('i'); document.body.append(probe);
  const sheet = new CSSStyleSheet(); sheet.replaceSync(`i:last-child { color: var(${name}) }`);
  document.adoptedStyleSheets = [sheet]; const colour = getComputedStyle(probe).color; probe.remove(); return colour;
};
const against = (a, b) => {
  const [x, y] = [light(value(a)), light(value(b))].sort((p, q) => q - p);
  return (x + .05) / (y + .05);
};
return Object.fromEntries(%s.map(([a, b]) => [`${a} on ${b}`, against(a, b)]));
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_what_they_lie_on(browser: Browser, pages: dict[str, Path], dark: bool) -> None:
    browser.show(pages["minimal"], dark=dark)
    text = [
        [ink, ground]
        for ink in ("--ink", "--soft", "--pass", "--fail", "--unsure", "--link")
        for ground in ("--paper", "--raised")
    ]
    text += [["--pass", "--pass-wash"], ["--fail", "--fail-wash"], ["--unsure", "--unsure-wash"], ["--soft", "--faint"]]
    found = browser.run(_CONTRAST % text)
    assert {pair: ratio for pair, ratio in found.items() if ratio < 4.5} == {}
    marks = [[mark, "--paper"] for mark in ("--baseline", "--unquantized", "--candidate", "--lane-2", "--lane-3")]
    found = browser.run(_CONTRAST % marks)
    assert {pair: ratio for pair, ratio in found.items() if ratio < 3} == {}


def test_a_printed_report_has_every_detail_open(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["run"])
    closed = "return document.querySelectorAll('details:not([open])').length"
    assert browser.run(closed) > 3
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(closed) == 0


@pytest.mark.parametrize(("required", "outcome"), [("0", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_without_chromium_a_test_is_skipped_by_name_or_fails_where_all_are_required(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, required: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MODELMILL_REQUIRE_ALL", required)
    with pytest.raises(outcome, match="apt-get install -y chromium chromium-driver"), open_browser(tmp_path):
        pass


def test_a_report_opens_inside_kubeflows_page_without_errors(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    # How frontend/src/components/viewers/HTMLViewer.tsx shows an artifact of the type HTML.
    page = tmp_path / "viewer.html"
    source = html.escape(pages["run"].read_text("utf-8"), quote=True)
    page.write_text(
        f'<!doctype html><iframe sandbox="allow-scripts" width="1100" height="700" srcdoc="{source}"></iframe>', "utf-8"
    )
    browser.show(page)
    browser.driver.switch_to.frame(0)
    assert browser.errors() == []
    # Its script ran: the filter of changed rows counts them.
    assert browser.run("return document.querySelector('form.filter output').textContent").endswith("rows")
    assert browser.run("return document.documentElement.scrollWidth") <= 1100
    browser.driver.switch_to.default_content()
