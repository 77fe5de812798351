"""Lineage from digests."""

from __future__ import annotations

import realistic_evidence
from modelmill.reports.view import RunStatus, RunView, StepRow
from realistic_evidence import digest


def _step(name: str, target: str | None, inputs: dict[str, str | dict[str, str]], **digests: str) -> StepRow:
    return StepRow(
        name=name,
        target=target,
        key=digest(name),
        inputs=inputs,
        digests=digests,
        reproducible=True,
        cached=False,
        seconds=1,
    )


def _edges(*steps: StepRow) -> list[tuple[int | None, int, str]]:
    run = RunView(title="t", status=RunStatus.PROMOTED, lanes=[], steps=list(steps))
    return [(edge.source, edge.sink, edge.port) for edge in run.lineage]


def test_bytes_passed_through_unchanged_come_from_the_last_step_that_gave_them() -> None:
    edges = _edges(
        _step("fetch", None, {}, model="a"),
        _step("retrain", None, {"model": "a"}, checkpoint="a"),
        _step("export", None, {"checkpoint": "a"}, model="b"),
    )
    assert edges == [(0, 1, "model"), (1, 2, "checkpoint")]


def test_equal_outputs_of_two_lanes_stay_in_their_lanes() -> None:
    edges = _edges(
        _step("optimize", "one", {}, model="m"),
        _step("optimize", "two", {}, model="m"),
        _step("apply", "one", {"model": "m"}, model="q"),
        _step("apply", "two", {"model": "m"}, model="q"),
        _step("publish", None, {"models": {"one": "q", "two": "q"}}, bundle="z"),
    )
    assert edges == [(0, 2, "model"), (1, 3, "model"), (2, 4, "models.one"), (3, 4, "models.two")]


def test_an_input_that_no_step_made_has_no_source() -> None:
    assert _edges(_step("gate", "one", {"model": "from outside"}, verdict="v")) == [(None, 0, "model")]


def test_every_input_of_a_realistic_run_has_a_step_that_made_it() -> None:
    run = realistic_evidence.run()
    assert len(run.steps) == 17
    assert all(edge.source is not None and edge.source < edge.sink for edge in run.lineage)
