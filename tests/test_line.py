from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelmill.core.contract import JSON, PortType, Zone
from modelmill.core.errors import DeploymentError
from modelmill.core.evidence import Verdict
from modelmill.core.stepkey import keyed
from modelmill.deployment import Deployment, Prices
from modelmill.line import LINE, NODES, Job, Scope, TaskOutput, decide, expand, require_prices
from modelmill.recipe import Located, Recipe

STEPS = ["fetch", "retrain", "export", "optimize", "calibrate-quantize", "evaluate", "gate", "publish"]


def _job(**changes: object) -> Job:
    value = {
        "name": "x",
        "task": "text-classification",
        "model": {"source": "package:a/b"},
        "data": {"source": "package:c"},
        "targets": [{"name": "one", "precision": "int8"}, {"name": "two", "precision": "float32"}],
        **changes,
    }
    return Job(Located(recipe=Recipe.model_validate(value), folder=Path("/nowhere")), Deployment())


def _gate_key(job: Job) -> dict[str, JSON]:
    return keyed(next(task for task in expand(job) if task.contract.name == "gate").settings)


def test_a_price_is_in_the_gates_key_only_where_a_cost_is_judged() -> None:
    cheap, dear = (Deployment(prices=Prices(core_hour=price, currency="EUR")) for price in (0.02, 0.04))
    plain, priced = _job(), _job(gate={"max_cost_per_million_texts": 1.0})
    assert _gate_key(plain) == _gate_key(replace(plain, deployment=dear))
    found = [_gate_key(replace(priced, deployment=deployed)) for deployed in (cheap, dear)]
    assert [(item["core_hour"], item["currency"]) for item in found] == [(0.02, "EUR"), (0.04, "EUR")]


def test_a_cost_without_a_price_is_told_before_anything_runs() -> None:
    priced = _job(gate={"max_cost_per_million_texts": 1.0})
    require_prices(replace(priced, deployment=Deployment(prices=Prices(core_hour=0.02))))
    require_prices(_job())
    with pytest.raises(DeploymentError, match=r"the deployment names no price\n.*prices\n.*core_hour"):
        require_prices(priced)


def test_fetch_keeps_the_column_that_the_gate_slices_by() -> None:
    for by, kept in ((None, []), ("class", []), ("language", ["language"])):
        fetch = expand(_job(gate={"slices": {"by": by}}))[0].settings
        assert fetch.model_dump()["data"]["keep"] == kept


def test_the_line_has_the_eight_steps() -> None:
    assert sorted({node.contract.name for node in LINE}) == sorted(STEPS)


def test_every_input_port_is_fed_by_an_output_port_of_its_type() -> None:
    for node in LINE:
        assert {port.name for port in node.contract.input_ports} == set(node.feeds)
        for port in node.contract.input_ports:
            edge = node.feeds[port.name]
            given = {item.name: item for item in NODES[edge.node].contract.output_ports}[edge.port]
            assert given.type == port.type, f"{node.id}.{port.name}"
            merges = NODES[edge.node].scope is Scope.LANE and node.scope is Scope.RUN
            assert port.many is merges, f"{node.id}.{port.name}"


def test_only_evaluate_and_gate_are_given_the_evaluation_rows() -> None:
    takers = {node.contract.name for node in LINE for edge in node.feeds.values() if edge.port == "evaluate"}
    assert takers == {"evaluate", "gate"}


def test_only_publish_may_write_the_registry() -> None:
    assert [node.id for node in LINE if node.contract.zone is Zone.RELEASE] == ["publish"]


def test_lanes_fan_out_and_merge_at_publish() -> None:
    tasks = expand(_job())
    ids = [task.id for task in tasks]
    assert ids[:3] == ["fetch", "retrain", "evaluate-baseline"]
    assert ids[-1] == "publish"
    assert ids.count("evaluate-baseline") == 1
    assert {"export.one", "export.two", "gate.one", "gate.two"} <= set(ids)
    assert tasks[-1].feeds["verdicts"] == {
        "one": TaskOutput("gate.one", "verdict"),
        "two": TaskOutput("gate.two", "verdict"),
    }
    seen: set[str] = set()
    for task in tasks:
        for feed in task.feeds.values():
            sources = [feed] if isinstance(feed, TaskOutput) else feed.values()
            assert {source.task for source in sources} <= seen, f"{task.id} stands before what feeds it"
        seen.add(task.id)


def test_every_contract_names_work_that_is_there() -> None:
    for node in LINE:
        assert callable(node.contract.load()), node.id
        assert node.contract.summary.endswith(".")
        assert all(isinstance(port.type, PortType) and port.description for port in node.contract.output_ports)


PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("require", "verdicts", "expected"),
    [
        ("all", (PASS, PASS), PASS),
        ("all", (PASS, FAIL), FAIL),
        ("all", (PASS, OPEN), OPEN),
        ("all", (OPEN, FAIL), FAIL),
        ("any", (PASS, FAIL), PASS),
        ("any", (OPEN, FAIL), OPEN),
        ("any", (FAIL, FAIL), FAIL),
        (["two"], (FAIL, PASS), PASS),
        (["one"], (FAIL, PASS), FAIL),
    ],
)
def test_what_is_required_decides(require: object, verdicts: tuple[Verdict, Verdict], expected: Verdict) -> None:
    recipe = _job(publish={"model": "m", "require": require}).recipe
    assert decide(recipe, dict(zip(("one", "two"), verdicts, strict=True))) is expected
