"""A GPU lane's repository in the real server: model.py asks the graph's model, which lies at the lane's root.

PyPI's Triton has neither a GPU nor the ONNX Runtime backend. What stands in for them is one line each of the graph's
configuration: a processor, and the Python backend with a file that runs the same graph; the rest is as it is shipped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modelmill.core.model import read_model
from modelmill.core.smoke import ServingPlan
from modelmill.serving import repository
from modelmill.serving.client import Client
from modelmill.serving.server import Installation, serve
from modelmill.serving.triton_model import open_classifier
from modelmill.steps.evaluate.smoke import link
from served_lane import NAME

_GRAPH = """
from pathlib import Path
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        self.session = onnxruntime.InferenceSession(str(Path(__file__).parent / "../../../../model.onnx"))

    def execute(self, requests):
        answers = []
        for request in requests:
            feeds = {
                item.name: triton.get_input_tensor_by_name(request, item.name).as_numpy()
                for item in self.session.get_inputs()
            }
            (logits,) = self.session.run(["logits"], feeds)
            answers.append(triton.InferenceResponse(output_tensors=[triton.Tensor("logits", logits)]))
        return answers
"""


def test_texts_are_answered_by_a_graph_that_the_server_runs(
    exported: Path, plan: ServingPlan, installation: Installation, tmp_path: Path
) -> None:
    document, lane = read_model(exported), tmp_path / "lane"
    assert document.components["model"].file == "model.onnx"
    on_gpu = plan.model_copy(update={"runtime": "onnxruntime-cuda", "together": True})
    files = repository.files_of(document, on_gpu, "gpu")
    name = f"serving/gpu/{NAME}-model/config.pbtxt"
    config = files[name].decode()
    for shipped, here in (
        ('platform: "onnxruntime_onnx"', 'backend: "python"'),
        ("KIND_GPU", "KIND_CPU"),
        ('"../../../../model.onnx"', '"graph.py"'),
    ):
        assert shipped in config
        config = config.replace(shipped, here)
    repository.write_files(
        lane, {**files, name: config.encode(), f"serving/gpu/{NAME}-model/1/graph.py": _GRAPH.encode()}
    )
    link(exported, lane)
    texts = ["my card is lost", "why", "top up pending " * 40]
    expected = open_classifier(exported, 1).scores(texts)
    with serve(installation, lane / "serving" / "gpu", NAME) as address, Client(address, NAME) as client:
        assert client.failed() is None
        assert np.abs(client.scores(texts) - expected).max() < 1e-6
