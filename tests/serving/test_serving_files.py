"""What a server is given: the model repository, on a CPU and on a GPU."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from environments import triton_python
from lane_artifacts import lane_measurements
from modelmill.core.evidence import Neighbours, Shift
from modelmill.core.model import ShapeProfile, Tensor, read_model
from modelmill.core.smoke import ServingPlan
from modelmill.serving import repository

_PARSE = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
found = {}
for path in sys.argv[1:]:
    config = text_format.Parse(open(path).read(), model_config_pb2.ModelConfig())
    found[path] = json_format.MessageToDict(config, preserving_proto_field_name=True)
print(json.dumps(found))
"""


def parsed(folder: Path) -> dict[str, Any]:
    """Each model's configuration, read strictly by NVIDIA's own schema."""
    paths = sorted(folder.rglob("config.pbtxt"))
    command = [str(triton_python()), "-c", _PARSE, *(str(path) for path in paths)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    return {path.parent.name: found[str(path)] for path in paths}


@pytest.mark.parametrize(("flips", "gathers"), [(0, True), (1, False)])
def test_texts_of_several_requests_stand_together_only_where_no_prediction_flips(
    flips: int, gathers: bool, evaluated: Mapping[str, Path], tmp_path: Path
) -> None:
    document = read_model(evaluated["model"])
    shift = Shift(flips=flips, largest=0.1, median=0.0)
    neighbours = Neighbours(rows=256, flips=flips, alone=shift, mixed=shift)
    plan = repository.plan_of(document, "banking", "onnxruntime", lane_measurements(), neighbours)
    assert plan is not None
    assert plan.threads == lane_measurements().hardware.threads
    repository.write_files(tmp_path, repository.files_of(document, plan, "cpu-int8"))
    config = parsed(tmp_path)["banking"]
    assert ("dynamic_batching" in config) is gathers
    assert config["max_batch_size"] == 32
    assert config["backend"] == "python"
    assert config["output"][0]["dims"] == ["3"]
    assert config["parameters"]["together"]["string_value"] == ("yes" if gathers else "no")


def test_timings_do_not_reach_the_serving_files(evaluated: Mapping[str, Path]) -> None:
    document = read_model(evaluated["model"])
    made = []
    for scale in (1.0, 3.0):
        plan = repository.plan_of(document, "banking", "onnxruntime", lane_measurements(scale), None)
        assert plan is not None
        made.append(repository.files_of(document, plan, "cpu-int8"))
    assert made[0] == made[1]


@pytest.mark.parametrize("runtime", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_gpu_lane_runs_its_graph_in_the_onnx_runtime_backend(
    runtime: str, evaluated: Mapping[str, Path], plan: ServingPlan, tmp_path: Path
) -> None:
    document = read_model(evaluated["model"])
    on_gpu = plan.model_copy(update={"runtime": runtime, "together": True})
    repository.write_files(tmp_path, repository.files_of(document, on_gpu, "gpu"))
    found = parsed(tmp_path)
    assert sorted(found) == ["banking", "banking-model"]
    graph = found["banking-model"]
    assert graph["platform"] == "onnxruntime_onnx"
    assert graph["instance_group"] == [{"kind": "KIND_GPU", "count": 1}]
    assert "dynamic_batching" in graph
    assert [(item["name"], item["data_type"], item["dims"]) for item in graph["input"]] == [
        (item.name, "TYPE_INT64", ["-1"]) for item in document.components["model"].inputs
    ]
    assert graph["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": ["3"]}]
    version = tmp_path / "serving/gpu/banking-model/1"
    assert (version / graph["default_model_filename"]).resolve() == tmp_path / document.components["model"].file
    accelerators = graph.get("optimization", {}).get("execution_accelerators", {})
    assert bool(accelerators) is (runtime == "onnxruntime-tensorrt")
    assert found["banking"]["parameters"]["graphs"]["string_value"] == "server"
    assert found["banking"]["instance_group"][0]["count"] == 2


def test_the_server_builds_tensorrts_engine_for_the_models_shapes(
    evaluated: Mapping[str, Path], plan: ServingPlan, tmp_path: Path
) -> None:
    shapes = ShapeProfile(usual_batch=4, usual_length=24, largest_batch=32, largest_length=128)
    document = read_model(evaluated["model"])
    for name, known in (("shapes", shapes), ("none", None)):
        changed = document.model_copy(update={"shapes": known})
        on_gpu = plan.model_copy(update={"runtime": "onnxruntime-tensorrt"})
        repository.write_files(tmp_path / name, repository.files_of(changed, on_gpu, "gpu"))
        graph = parsed(tmp_path / name)["banking-model"]
        (accelerator,) = graph["optimization"]["execution_accelerators"]["gpu_execution_accelerator"]
        inputs = [item.name for item in document.components["model"].inputs]
        assert accelerator.get("parameters", {}) == (
            {
                f"trt_profile_{end}_shapes": ",".join(f"{item}:{shape}" for item in inputs)
                for end, shape in (("min", "1x1"), ("opt", "4x24"), ("max", "32x128"))
            }
            if known
            else {}
        )


def test_a_name_cannot_leave_its_quotes(evaluated: Mapping[str, Path], plan: ServingPlan, tmp_path: Path) -> None:
    document = read_model(evaluated["model"])
    component = document.components["model"]
    odd = Tensor(name='x" dims: [ 9 ] }, { name: "y', dtype="int64", shape=["batch", "sequence"])
    changed = document.model_copy(update={"components": {"model": component.model_copy(update={"inputs": [odd]})}})
    on_gpu = plan.model_copy(update={"runtime": "onnxruntime-cuda"})
    repository.write_files(tmp_path, repository.files_of(changed, on_gpu, "gpu"))
    assert [item["name"] for item in parsed(tmp_path)["banking-model"]["input"]] == [odd.name]


def test_a_model_without_labels_or_tokenizer_file_has_no_serving_files(evaluated: Mapping[str, Path]) -> None:
    document = read_model(evaluated["model"])
    for changes, words in (
        ({"labels": []}, "a score for each label"),
        ({"processors": {"tokenizer": ["vocab.txt"]}}, "no tokenizer.json"),
    ):
        changed = document.model_copy(update=changes)
        assert words in str(repository.unservable(changed, "onnxruntime"))
        assert repository.plan_of(changed, "banking", "onnxruntime", lane_measurements(), None) is None
    assert repository.unservable(document, "onnxruntime") is None
    assert "OpenVINO" in str(repository.unservable(document, "openvino"))
