"""The bit of a cluster's API by which KServe is asked, on loopback: one InferenceService, read by its name."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from environments import kubeconfig

_PATH = re.compile(r"/apis/serving\.kserve\.io/v1beta1/namespaces/([^/]+)/inferenceservices/([^/?]+)$")


def service(uri: str, *, ready: bool = True, address: str = "", **status: Any) -> dict[str, Any]:
    """An InferenceService as KServe writes it."""
    conditions = [
        {"type": "PredictorReady", "status": "True" if ready else "False", "reason": "MinimumReplicasUnavailable"},
        {"type": "Ready", "status": "True" if ready else "False", "reason": "PredictorNotReady"},
    ]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "banking", "namespace": "models", "generation": 3},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "triton"}, "storageUri": uri}}},
        "status": {
            "observedGeneration": 3,
            "conditions": conditions,
            "url": address,
            "modelStatus": {"transitionStatus": "UpToDate" if ready else "InProgress"},
            **status,
        },
    }


@contextmanager
def cluster(folder: Path, answer: Callable[[str, str], tuple[int, Any]]) -> Iterator[Path]:
    """The kubeconfig of a cluster in which ``answer`` gives status and document of a namespace's InferenceService."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            found = _PATH.match(self.path)
            code, document = answer(found[1], found[2]) if found else (404, {"kind": "Status", "code": 404})
            body = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    path = folder / "kubeconfig"
    path.write_text(json.dumps(kubeconfig(f"http://127.0.0.1:{server.server_port}")), "utf-8")
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
