"""What the search may try, declared: adding a candidate is adding a line here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from modelmill.steps.calibrate_quantize.contract import Calibration, Gelu, Scheme, Variant
from modelmill.targets.base import Precision, Runtime

SMOOTHED = 0.8
"""SmoothQuant's migration strength: of 0.5, 0.8 and 0.95 what moves a MiniLM's outputs least (the step's README)."""
PART_TOKENS = (0, 64, 128, 256, 512)
"""Tokens of a part that micro-batching tries: row by row up to a megabyte of a small encoder's widest values."""


@dataclass(frozen=True)
class Declared:
    """One way to make a model from the optimized graph.

    Attributes:
        name: For people; unique within a runtime.
        precision: What it computes in.
        scheme: How activations become int8, if they do.
        runtimes: Where it is worth a trial.
        changes: Fields of `Variant` that are not the default.
        rare: Whether it seldom is the fastest: it is tried after the others were judged and divided, while the
            search's budget lasts.
    """

    name: str
    precision: Precision
    scheme: Scheme
    runtimes: frozenset[Runtime]
    changes: dict[str, Any] = field(default_factory=dict)
    rare: bool = False


ORT = frozenset({Runtime.ONNXRUNTIME})
OPENVINO = frozenset({Runtime.OPENVINO})
BOTH = ORT | OPENVINO
TENSORRT = frozenset({Runtime.ONNXRUNTIME_TENSORRT})
GPU = TENSORRT | {Runtime.ONNXRUNTIME_CUDA}
FLOAT32, BF16, FP16, INT8 = Precision.FLOAT32, Precision.BF16, Precision.FP16, Precision.INT8
NONE, DYNAMIC, STATIC = Scheme.NONE, Scheme.DYNAMIC, Scheme.STATIC

AROUND_ZERO = {"symmetric": True, "embeddings": False}
"""TensorRT knows no zero point but 0, and gathers no quantized table."""
ASLEEP = {"session": {"session.intra_op.allow_spinning": "0"}}
"""ONNX Runtime's threads wait for work asleep, which is faster where processors are shared, and slower where not."""
RESIDUALS = {**AROUND_ZERO, "residuals": True}

SPACE: tuple[Declared, ...] = (
    # In each precision the first one is what is taken where nothing is tried.
    Declared("dynamic int8", INT8, DYNAMIC, ORT),
    Declared("static int8", INT8, STATIC, BOTH),
    Declared("bf16", BF16, NONE, OPENVINO, {"rest": BF16}),
    Declared("float32", FLOAT32, NONE, BOTH),
    Declared("static int8, rest in bf16", INT8, STATIC, OPENVINO, {"rest": BF16}),
    Declared("dynamic int8, tanh GELU", INT8, DYNAMIC, ORT, {"gelu": Gelu.TANH}),
    Declared("static int8, tanh GELU", INT8, STATIC, ORT, {"gelu": Gelu.TANH}),
    Declared("static int8, smoothed", INT8, STATIC, OPENVINO, {"smooth": SMOOTHED}),
    Declared("static int8, smoothed, rest in bf16", INT8, STATIC, OPENVINO, {"smooth": SMOOTHED, "rest": BF16}),
    Declared("float32, tanh GELU", FLOAT32, NONE, ORT, {"gelu": Gelu.TANH}),
    # On the encoders tried these move outputs more than MinMax does, or are larger, and seldom faster.
    Declared("dynamic int8, threads asleep", INT8, DYNAMIC, ORT, ASLEEP, rare=True),
    Declared("static int8, threads asleep", INT8, STATIC, ORT, ASLEEP, rare=True),
    Declared("float32, threads asleep", FLOAT32, NONE, ORT, ASLEEP, rare=True),
    Declared("static int8, percentile", INT8, STATIC, BOTH, {"calibration": Calibration.PERCENTILE}, rare=True),
    Declared("static int8, symmetric", INT8, STATIC, BOTH, {"symmetric": True}, rare=True),
    Declared("dynamic int8, unquantized tables", INT8, DYNAMIC, ORT, {"embeddings": False}, rare=True),
    Declared("static int8, unquantized tables", INT8, STATIC, BOTH, {"embeddings": False}, rare=True),
    Declared("static int8, entropy", INT8, STATIC, BOTH, {"calibration": Calibration.ENTROPY}, rare=True),
    # Of the unquantized halves fp16 first: it has three bits more, and islands where it does not reach.
    Declared("static int8, rest in fp16", INT8, STATIC, TENSORRT, {**AROUND_ZERO, "rest": FP16}),
    Declared("static int8, residuals too, rest in fp16", INT8, STATIC, TENSORRT, {**RESIDUALS, "rest": FP16}),
    Declared("static int8", INT8, STATIC, TENSORRT, AROUND_ZERO),
    Declared("fp16", FP16, NONE, GPU, {"rest": FP16}),
    Declared("bf16", BF16, NONE, GPU, {"rest": BF16}),
    Declared("float32", FLOAT32, NONE, GPU),
    Declared(
        "static int8, percentile, rest in fp16",
        INT8,
        STATIC,
        TENSORRT,
        {**AROUND_ZERO, "rest": FP16, "calibration": Calibration.PERCENTILE},
    ),
)


@dataclass(frozen=True)
class Candidate:
    """A variant under its name."""

    name: str
    variant: Variant
    rare: bool = False


def candidates(
    runtime: Runtime,
    precisions: Sequence[Precision],
    *,
    scheme: Scheme | None,
    embeddings: bool,
    calibration_rows: int,
    reduce_range: bool,
    has_bf16: bool,
) -> list[Candidate]:
    """The declared candidates that a lane allows, in the order in which they are tried; none where none is allowed."""
    found = [
        Candidate(
            declared.name,
            Variant(
                precision=declared.precision,
                scheme=declared.scheme,
                **{
                    "embeddings": embeddings,
                    "calibration_rows": calibration_rows,
                    "reduce_range": reduce_range and declared.precision is INT8,
                    **declared.changes,
                },
            ),
            declared.rare,
        )
        for declared in SPACE
        if runtime in declared.runtimes
        and declared.precision in precisions
        and scheme in (None, declared.scheme)
        and declared.changes.get("rest", FLOAT32) in {FLOAT32, *precisions}
        and (has_bf16 or declared.changes.get("rest") is not BF16)
    ]
    # Where a setting asks for what a declaration changes, the two are one.
    return [item for index, item in enumerate(found) if item.variant not in [one.variant for one in found[:index]]]


def schemes_of(runtime: Runtime, precisions: Sequence[Precision]) -> list[Scheme]:
    """The schemes that some candidate of a runtime in one of the precisions has, in the order of `Scheme`."""
    found = {item.scheme for item in SPACE if runtime in item.runtimes and item.precision in precisions}
    return [scheme for scheme in Scheme if scheme in found]
