"""Runtimes that this version runs, declared without loading any."""

from __future__ import annotations

import importlib
from typing import cast

from modelmill.targets.base import Capabilities, Device, OpenSession, Precision, Runtime

RUNTIMES: dict[Runtime, Capabilities] = {
    Runtime.ONNXRUNTIME: Capabilities(
        runtime=Runtime.ONNXRUNTIME,
        device=Device.CPU,
        precisions=(Precision.FLOAT32, Precision.INT8),
        module="modelmill.targets.onnxruntime_cpu",
        packages=("onnxruntime",),
    ),
}


def open_session_of(runtime: Runtime) -> OpenSession:
    """Load a runtime and return its ``open_session``."""
    return cast("OpenSession", importlib.import_module(RUNTIMES[runtime].module).open_session)
