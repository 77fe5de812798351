"""Running a recipe with a lane on a GPU where there is none: said before anything is trained, and never measured."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from modelmill import recipe as recipes
from modelmill.core.errors import HardwareError
from modelmill.core.evidence import Cell
from modelmill.core.local_store import LocalStore
from modelmill.core.progress import SilentProgress
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners import local
from modelmill.runners.process import StepCommand
from modelmill.steps.evaluate.contract import MeasureInputs, MeasureSettings
from modelmill.steps.evaluate.measurements import write_measurements
from modelmill.targets.base import Runtime
from modelmill.targets.registry import lacks_gpu
from whole_line import make_recipe

pytestmark = pytest.mark.skipif(
    not lacks_gpu(Runtime.ONNXRUNTIME_CUDA), reason="the build of ONNX Runtime here is a GPU's"
)


class Told(SilentProgress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.facts: list[str] = []

    def fact(self, text: str) -> None:
        self.facts.append(text)


class FirstStepError(Exception):
    """A step would run now."""


def stop(command: StepCommand) -> NoReturn:
    raise FirstStepError(command.step)


def job(folder: Path, trials: int) -> Job:
    lanes = [{"name": "cpu"}, {"name": "cuda", "device": "gpu", "runtime": "onnxruntime-cuda"}]
    recipe = make_recipe(folder, targets=lanes, search={"trials": trials})
    return Job(recipes.load(recipe), Deployment())


def test_a_search_on_a_gpu_that_is_not_here_ends_before_the_first_step(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    with pytest.raises(HardwareError) as refused:
        local.run(job(tmp_path, 8), store, SilentProgress(), stop)
    said = str(refused.value)
    assert "onnxruntime-cuda needs an NVIDIA GPU and onnxruntime-gpu, and neither is known here" in said
    assert "targets: cuda: runtime" in said
    assert "modelmill compile RECIPE" in said
    assert refused.value.exit_code == 2


def test_without_trials_the_run_begins_and_says_what_will_not_work(tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(FirstStepError):
        local.run(job(tmp_path, 0), LocalStore(tmp_path / "store"), told, stop)
    (said,) = [fact for fact in told.facts if "GPU" in fact]
    assert said.startswith("targets: cuda: the runtime onnxruntime-cuda needs an NVIDIA GPU, and none is known here")


@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME_CUDA, Runtime.ONNXRUNTIME_TENSORRT])
def test_nothing_is_measured_for_a_gpu_that_is_not_here(tmp_path: Path, runtime: Runtime) -> None:
    nowhere = tmp_path / "nothing is loaded"
    inputs = MeasureInputs(nowhere, nowhere, nowhere, nowhere, nowhere)
    settings = MeasureSettings(
        task="text-classification", runtime=runtime, cells=[Cell(batch_size=1, sequence_length=8)]
    )
    with pytest.raises(HardwareError, match="nothing was timed"):
        write_measurements(inputs, tmp_path, settings, SilentProgress())
    assert not list(tmp_path.iterdir())
