"""The header of a safetensors file, read without mapping a tensor.

Source: the format's description at github.com/huggingface/safetensors: 8 bytes little-endian N, N bytes of JSON that
begin with ``{``, then the tensors' bytes, which the header's offsets cover without gap or overlap.
"""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path

from modelmill.core.contract import JSON
from modelmill.core.errors import ModelError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


def read_header(path: Path, where: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor name → (dtype, shape) of a safetensors file whose layout is sound.

    Raises:
        ModelError: It is truncated, has bytes to spare, or its header is too large or says what cannot be.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0] if size >= 8 else None
        if length is None or 8 + min(length, MAX_HEADER_BYTES) > size:
            raise _broken(where, f"is cut short: it has {size} bytes, and its header alone needs more")
        if length > MAX_HEADER_BYTES:
            raise _broken(where, f"claims a header of {length} bytes, and {MAX_HEADER_BYTES} are the limit")
        raw = stream.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _broken(where, f"has a header that is no JSON: {error}") from None
    if not isinstance(header, dict) or not raw.startswith(b"{"):
        raise _broken(where, "has a header that is no JSON object")
    tensors, spans = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, begin, end = _entry(name, entry, where)
        tensors[name] = (dtype, shape)
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise _broken(where, f"has a gap or an overlap before the tensor {name}")
        position = end
    found = size - 8 - length
    if position > found:
        raise _broken(where, f"is cut short: its tensors need {position} bytes, and {found} are there")
    if position < found:
        raise _broken(where, f"has {found - position} bytes that belong to no tensor")
    if not tensors:
        raise _broken(where, "holds no tensor")
    return tensors


def _entry(name: str, entry: JSON, where: str) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _broken(where, f"does not say dtype, shape and data_offsets of the tensor {name}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _broken(where, f"gives the tensor {name} the dtype {dtype!r}, which is unknown")
    sizes = _naturals(shape)
    bounds = _naturals(offsets)
    if sizes is None or bounds is None or len(bounds) != 2:
        raise _broken(where, f"gives the tensor {name} a shape or offsets that are no whole numbers from 0")
    if (bounds[1] - bounds[0]) * 8 != prod(sizes) * BITS[dtype]:
        raise _broken(where, f"gives the tensor {name} as many bytes as its shape and dtype don't need")
    return dtype, sizes, bounds[0], bounds[1]


def _naturals(value: JSON) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    found = tuple(item for item in value if isinstance(item, int) and not isinstance(item, bool) and item >= 0)
    return found if len(found) == len(value) else None


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    found = dict(pairs)
    if len(found) != len(pairs):
        what = "a name stands twice"
        raise ValueError(what)
    return found


def _broken(where: str, words: str) -> ModelError:
    name = where.rsplit("/", 1)[-1]
    return ModelError(f"{name} {words}", where=where, fix="fetch or save the model again: this file is damaged")
