"""One contract test over every step, and a task of two graphs driven through all of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from fake_task import FakeTask
from modelmill.core.contract import Closed, PortType, StepContract, Unkeyed
from modelmill.core.local_store import LocalStore
from modelmill.core.model import read_model
from modelmill.line import LINE
from modelmill.runners.result import Status
from modelmill.tasks import registry
from whole_line import make_recipe, run_in_this_process

CONTRACTS = [node.contract for node in LINE]
STEPS = Path(__file__).resolve().parents[1] / "components" / "modelmill" / "steps"


@pytest.fixture
def fake_task() -> Iterator[str]:
    registry.register(FakeTask())
    yield FakeTask.name
    registry._TASKS.pop(FakeTask.name)


@pytest.mark.parametrize("contract", CONTRACTS, ids=[contract.id for contract in CONTRACTS])
class TestEveryContract:
    def test_its_folder_has_contract_work_and_readme(self, contract: StepContract) -> None:
        folder = STEPS / contract.name.replace("-", "_")
        for name in ("contract.py", "run.py", "README.md"):
            assert (folder / name).is_file(), name

    def test_its_settings_are_closed_and_described(self, contract: StepContract) -> None:
        assert issubclass(contract.settings, Closed)
        for name, field in contract.settings.model_fields.items():
            assert field.description or name in {"task", "runtime", "target", "policy", "retrain", "model", "data"}, (
                name
            )

    def test_its_settings_take_no_task_or_runtime_that_is_not_here(self, contract: StepContract) -> None:
        fields = contract.settings.model_fields
        absent = {"task": "question-answerign", "runtime": "onnxruntime-rocm"}
        wrong = {name: value for name, value in absent.items() if name in fields}
        with pytest.raises(ValidationError) as refused:
            contract.settings.model_validate({**wrong, "no": "field"})
        found = {str(error["loc"][0]) for error in refused.value.errors()}
        assert set(wrong) <= found

    def test_its_ports_are_typed_and_described(self, contract: StepContract) -> None:
        assert contract.output_ports
        for port in (*contract.input_ports, *contract.output_ports):
            assert port.type in PortType
            assert port.description
        names = [port.name for port in contract.input_ports]
        assert len(set(names)) == len(names)

    def test_its_contract_loads_no_heavy_library(self, contract: StepContract) -> None:
        module = f"modelmill.steps.{contract.name.replace('-', '_')}.contract"
        code = f"import {module}, sys; print(set(sys.modules) & {{'torch', 'transformers', 'onnxruntime', 'numpy'}})"
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert shown.stdout.strip() == "set()"

    def test_its_work_is_one_plain_function(self, contract: StepContract) -> None:
        module, _, name = contract.function.partition(":")
        source = STEPS.parents[1] / (module.replace(".", "/") + ".py")
        functions = {
            node.name: node for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef)
        }
        assert [argument.arg for argument in functions[name].args.args] == ["inputs", "outputs", "settings", "progress"]


def test_only_locations_are_left_out_of_keys() -> None:
    unkeyed = {
        f"{contract.id}.{name}"
        for contract in CONTRACTS
        for name, field in contract.settings.model_fields.items()
        if any(isinstance(mark, Unkeyed) for mark in field.metadata)
    }
    assert unkeyed == {"fetch.mounts", "publish.git", "publish.keyless", "publish.mirrors", "publish.run"}


def test_a_model_of_two_graphs_goes_through_every_step(tmp_path: Path, fake_task: str) -> None:
    recipe = make_recipe(tmp_path, task=fake_task)
    document = run_in_this_process(recipe, LocalStore(tmp_path / "store"))
    assert document.status is Status.PROMOTED
    bundle = Path(str(document.bundle))
    model = read_model(bundle)
    assert set(model.components) == {"encoder", "head"}
    assert model.precision == "int8"
    assert all((bundle / component.file).is_file() for component in model.components.values())


def test_pairs_of_texts_go_through_every_step(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    for split in ("train", "test"):
        path = tmp_path / "rows" / f"{split}.jsonl"
        lines = path.read_text().splitlines()
        path.write_text("".join(line[:-1] + ', "text_pair": "why is it so"}\n' for line in lines))
    document = run_in_this_process(recipe, LocalStore(tmp_path / "store"))
    assert document.status is Status.PROMOTED
