from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from modelmill.core import hardware
from modelmill.core.contract import JSON, PortType, Zone
from modelmill.core.errors import DeploymentError, HardwareError, RecipeError, UsageError
from modelmill.core.evidence import Verdict
from modelmill.core.stepkey import keyed, step_key
from modelmill.deployment import Deployment, Prices
from modelmill.line import (
    LINE,
    NODES,
    Decision,
    Job,
    Scope,
    Task,
    TaskOutput,
    decide,
    expand,
    require_machine,
    require_prices,
    require_runtimes,
)
from modelmill.recipe import Located, Recipe
from modelmill.targets import registry

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


def test_a_lane_on_a_gpu_has_no_price_by_the_core_hour() -> None:
    gpu = {"name": "gpu", "device": "gpu", "runtime": "onnxruntime-cuda", "precision": "fp16"}
    priced = _job(gate={"max_cost_per_million_texts": 1.0}, targets=[{"name": "cpu"}, gpu])
    with pytest.raises(RecipeError, match=r"core-hours, and the lane gpu runs on a GPU\n.*\n.*GPU lanes a recipe"):
        require_prices(replace(priced, deployment=Deployment(prices=Prices(core_hour=0.02))))


def test_what_a_gpu_answers_is_found_again_on_the_same_gpu_alone() -> None:
    gpu = {"name": "gpu", "device": "gpu", "runtime": "onnxruntime-cuda", "precision": "fp16"}
    predicts = {
        task.target.name: task
        for task in expand(_job(targets=[{"name": "cpu"}, gpu]))
        if task.target and task.contract.id == "evaluate-candidate"
    }
    machine = hardware.cpu()
    drivers = [machine.model_copy(update={"device": "gpu", "model": f"L4 driver {number}"}) for number in (1, 2)]

    def keys(task: Task) -> set[str]:
        return {step_key(task.contract, task.settings, {}, each, {}) for each in drivers}

    assert len(keys(predicts["gpu"])) == 2
    assert len(keys(predicts["cpu"])) == 1


def test_a_target_whose_runtime_is_not_installed_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _job(targets=[{"name": "one"}, {"name": "two", "runtime": "openvino"}]).recipe
    require_runtimes(recipe)
    found = metadata.version

    # A distribution cannot be taken away beside the tests' own.
    def without(name: str) -> str:
        if name == "openvino":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "version", without)
    with pytest.raises(UsageError, match=r"needs the package openvino.*\n.*targets: two: runtime\n.*pip install"):
        require_runtimes(recipe)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hardware_class": "cpu/another/amx_int8/64t"}, "declares the hardware class cpu/another/amx_int8/64t"),
        ({"runtime": "openvino", "precision": "bf16"}, "this processor does not compute bf16"),
        ({"device": "gpu", "runtime": "onnxruntime-cuda", "precision": "fp16"}, "needs an NVIDIA GPU"),
    ],
)
def test_a_machine_that_cannot_run_a_lane_is_told_before_anything_is_trained(
    changes: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Processors of the tests' machines differ.
    here = hardware.cpu().model_copy(update={"instruction_set": ["avx2"]})
    monkeypatch.setattr(hardware, "cpu", lambda: here)
    monkeypatch.setattr(registry, "cpu", lambda: here)
    require_machine(_job().recipe)
    require_machine(_job(targets=[{"name": "one", "hardware_class": here.hardware_class}]).recipe)
    require_machine(_job(targets=[{"name": "one", "runtime": "openvino", "precision": ["bf16", "int8"]}]).recipe)
    with pytest.raises(HardwareError, match=said) as caught:
        require_machine(_job(targets=[{"name": "one"}, {"name": "two", **changes}]).recipe)
    assert caught.value.exit_code == 2


def test_the_key_of_what_a_runtime_shapes_holds_its_version_alone() -> None:
    targets = [{"name": "one"}, {"name": "two", "runtime": "openvino"}]
    packages = {
        task.id: task.contract.packages_for(task.settings)
        for task in expand(_job(targets=targets))
        if task.contract.id == "evaluate-measure"
    }
    assert packages == {
        "evaluate-measure.one": ("onnxruntime", "torch", "transformers"),
        "evaluate-measure.two": ("openvino", "torch", "transformers"),
    }


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, []),
        ({"slices": {"by": "class"}}, []),
        ({"slices": {"by": "language"}}, ["language"]),
        ({"unit": "conversation"}, ["conversation"]),
        ({"unit": "class"}, ["class"]),
    ],
)
def test_fetch_keeps_the_column_that_the_gate_slices_by_or_that_names_its_units(
    asked: dict[str, object], kept: list[str]
) -> None:
    assert expand(_job(gate=asked))[0].settings.model_dump()["data"]["keep"] == kept


@pytest.mark.parametrize(
    ("bound", "against"),
    [
        ({}, None),
        ({"max_drop_vs_champion_points": 1.0}, ["champion"]),
        ({"max_class_shift_vs_published": 0.1}, ["champion"]),
        ({"max_drop_vs_reference_points": 1.0}, ["reference"]),
        ({"max_drop_vs_reference_points": 1.0, "max_drop_vs_champion_points": 1.0}, ["champion", "reference"]),
    ],
)
def test_evaluate_asks_what_is_served_only_where_a_bound_is_set(
    bound: dict[str, float], against: list[str] | None
) -> None:
    job = _job(gate=bound, publish={"model": "m", "channel": "staging"})
    tasks = {task.id: task.settings.model_dump(mode="json") for task in expand(job)}
    served = tasks["evaluate-candidate.one"]["served"]
    if against is None:
        assert served is None
    else:
        assert (served["model"], served["channel"], served["lane"]) == ("m", "staging", "one")
        assert served["against"] == against


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


PASS, FAIL, OPEN, GONE = Decision.PASS, Decision.FAIL, Decision.INCONCLUSIVE, Decision.UNAVAILABLE


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
        ("all", (PASS, GONE), GONE),
        ("all", (FAIL, GONE), FAIL),
        ("all", (OPEN, GONE), GONE),
        ("any", (PASS, GONE), PASS),
        ("any", (FAIL, GONE), GONE),
        (["one"], (PASS, GONE), PASS),
        (["two"], (PASS, GONE), GONE),
    ],
)
def test_what_is_required_decides(require: object, verdicts: tuple[Decision, Decision], expected: Decision) -> None:
    recipe = _job(publish={"model": "m", "require": require}).recipe
    found = dict(zip(("one", "two"), verdicts, strict=True))
    judged = {name: Verdict(verdict.value) for name, verdict in found.items() if verdict is not GONE}
    assert decide(recipe, judged, {name: "away" for name in found if name not in judged}) is expected
