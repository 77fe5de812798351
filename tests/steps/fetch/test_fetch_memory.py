"""fetch holds no file in memory: measured on models larger than the bound."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from hub_server import hub_server
from modelmill.steps.fetch.contract import DataSource, ModelSource, Settings
from small_data import model_files

LIMIT_BYTES = 300_000_000
CODE = """
import dataclasses, pathlib, sys
from modelmill.core.progress import SilentProgress
from modelmill.steps.fetch.contract import Inputs, Outputs, Settings
from modelmill.steps.fetch.resolve import resolve
from modelmill.steps.fetch.run import run
paths = {field.name: pathlib.Path(sys.argv[2]) / field.name for field in dataclasses.fields(Outputs)}
for path in paths.values():
    path.mkdir(parents=True)
settings = resolve(Settings.model_validate_json(sys.argv[1]), SilentProgress())
report = run(Inputs(), Outputs(**paths), settings, SilentProgress())
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(report.facts["model"]["weights_bytes"], int(peak.split()[1]) * 1024)
"""
# Not ru_maxrss: Linux keeps in it what the parent had when it forked, which here is all of pytest.


def header_of(floats: int) -> bytes:
    """The header of a safetensors file with one float32 tensor."""
    raw = json.dumps({"a": {"dtype": "F32", "shape": [floats], "data_offsets": [0, 4 * floats]}}).encode()
    return struct.pack("<Q", len(raw)) + raw


def measured(model: str, data: Path, out: Path, **environment: str) -> tuple[int, int]:
    """(bytes of weights, peak RSS in bytes) of a fetch in a process of its own."""
    settings = Settings(
        task="text-classification",
        model=ModelSource(source=model),
        data=DataSource(source=f"file:{data}", tune=0.2),
    )
    command = [sys.executable, "-c", CODE, settings.model_dump_json(), str(out)]
    ran = subprocess.run(command, check=True, env={**os.environ, **environment}, capture_output=True, text=True)
    size, peak = ran.stdout.split()
    return int(size), int(peak)


@pytest.mark.slow
def test_a_model_of_two_gigabytes_is_fetched_in_less_than_300_mb(model_folder, data_folder, tmp_path):
    with (model_folder / "model.safetensors").open("wb") as stream:
        stream.write(header_of(500_000_000))
        stream.truncate(stream.tell() + 2_000_000_000)
    size, peak = measured(f"file:{model_folder}", data_folder, tmp_path / "out")
    assert size > 2_000_000_000
    assert peak < LIMIT_BYTES, peak


@pytest.mark.slow
def test_a_download_larger_than_300_mb_takes_less_than_that(data_folder, tmp_path):
    with hub_server() as hub:
        weights = header_of(100_000_000) + bytes(400_000_000)
        hub.push("mill/large", {**model_files(), "model.safetensors": weights})
        environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        size, peak = measured("hf://mill/large", data_folder, tmp_path / "out", **environment)
    assert size > 400_000_000
    assert peak < LIMIT_BYTES, peak
