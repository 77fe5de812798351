"""A report that cannot be rendered takes nothing with it: verdict, bundle and run stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from lane_artifacts import judge_lane, publish_lanes
from modelmill.core.bundle import verify
from modelmill.core.evidence import LaneEvidence, Verdict
from modelmill.reports import render
from modelmill.reports.unrendered import rendered
from modelmill.runners import view
from modelmill.runners.result import RunDocument, Status
from modelmill.steps.gate import run as gate
from modelmill.steps.publish import run as publish


def fails(*_: object) -> str:
    # A stand-in: no evidence is known that breaks the real renderer, or it would be mended.
    why = "no <b>width</b>"
    raise ZeroDivisionError(why)


def test_a_report_that_can_be_rendered_is_as_it_is() -> None:
    assert rendered(lambda: "<p>a report</p>", "cpu-int8") == "<p>a report</p>"


def test_a_verdict_stands_without_its_report(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "render_lane", fails)
    lane = judge_lane(tmp_path, tiny_bert)
    evidence = LaneEvidence.model_validate_json((lane["verdict"] / "verdict.json").read_bytes())
    assert evidence.verdict is Verdict.PASS
    page = (lane["report"] / "report.html").read_text("utf-8")
    assert "This report could not be rendered" in page
    assert "ZeroDivisionError: no &lt;b&gt;width&lt;/b&gt;" in page


def test_a_bundle_is_published_without_its_report(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "render_run", fails)
    bundle = publish_lanes(tmp_path / "bundle", {"cpu-int8": judge_lane(tmp_path / "lane", tiny_bert)})
    assert verify(bundle).lanes == {"cpu-int8": "."}
    assert "could not be rendered" in (bundle / "report.html").read_text("utf-8")


def test_a_run_ends_without_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "render_run", fails)
    document = RunDocument(
        run="night", recipe="banking", recipe_digest="sha256:0", status=Status.PROMOTED, started_at="2026-01-01"
    )
    page = view.page(document, [], {})
    assert "This report could not be rendered" in page
    assert "<h1>banking</h1>" in page
