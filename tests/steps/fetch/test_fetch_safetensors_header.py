"""The header reader agrees with the safetensors library on what is sound."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from modelmill.core.errors import ModelError
from modelmill.steps.fetch.safetensors_header import read_header


def test_names_shapes_and_types_are_those_the_library_wrote(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((), np.int64), "c": np.zeros((0, 4), np.float16)}
    save_file(tensors, path, metadata={"format": "pt"})
    assert read_header(path, str(path)) == {"a": ("F32", (2, 3)), "b": ("I64", ()), "c": ("F16", (0, 4))}


ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "I8", "BOOL", "X"]),
        "shape": st.lists(st.integers(-1, 3), max_size=2),
        "data_offsets": st.lists(st.integers(0, 24), min_size=2, max_size=2),
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(
    header=st.dictionaries(st.sampled_from(["a", "b"]), ENTRY, min_size=1),
    body=st.integers(0, 24),
    cut=st.integers(0, 9),
)
def test_nothing_is_called_sound_that_the_library_refuses(header, body, cut, tmp_path):
    path = tmp_path / "model.safetensors"
    raw = json.dumps(header).encode()
    content = struct.pack("<Q", len(raw)) + raw + bytes(body)
    path.write_bytes(content[: len(content) - cut])
    try:
        found = read_header(path, str(path))
    except ModelError:
        return
    with safe_open(path, "numpy") as opened:
        assert set(opened.keys()) == set(found)


def test_the_library_refuses_a_name_that_stands_twice_or_we_do(tmp_path):
    path = tmp_path / "model.safetensors"
    raw = b'{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}'
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"x")
    with pytest.raises(ModelError, match="a name stands twice"):
        read_header(path, str(path))
