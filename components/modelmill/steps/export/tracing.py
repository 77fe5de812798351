"""A torch module becomes an ONNX graph with named axes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping

import onnx_ir as ir
import torch
from transformers.exporters.configs import OnnxConfig
from transformers.exporters.exporter_onnx import OnnxExporter

from modelmill.core.errors import ModelError
from modelmill.graphs import files
from modelmill.graphs.sharing import share_matrices
from modelmill.tasks.base import ExportUnit

Tensors = Mapping[str, torch.Tensor]
TRACE_BATCH_SIZE = 3
"""torch.export specialises sizes 0 and 1: a sample of one row fixes the batch to 1 without a word."""
TRACE_LENGTH = 11


def trace(unit: ExportUnit, sample: Tensors, opset: int) -> ir.Model:
    """The unit as a graph, its inputs, outputs and axes named as the unit says.

    Args:
        unit: What to trace. Outputs beyond ``unit.outputs`` are dropped.
        sample: Input name → tensor, two rows or more.
        opset: Version of ONNX's default domain.

    Raises:
        ModelError: The module cannot be traced with varying axes, or gives fewer outputs than it should.
    """
    # DYNAMIC, unlike AUTO, refuses to fix a size, and unlike a named Dim takes the model's own limits as they are.
    shapes = {name: dict.fromkeys(unit.dynamic_axes.get(name, {}), torch.export.Dim.DYNAMIC) for name in unit.inputs}
    config = OnnxConfig(dynamic_shapes=shapes, opset_version=opset)
    try:
        with _quiet(), torch.no_grad():
            exporter = OnnxExporter()
            inputs = {name: sample[name] for name in unit.inputs}
            model: ir.Model = exporter.export_program(unit.module, inputs, config)[0]
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError) as error:
        what = f"the module {type(unit.module).__name__} of {unit.role!r} cannot be exported: {_first_line(error)}"
        raise ModelError(what, where=f"export, opset {opset}", fix="choose an architecture that exports") from error
    _name_outputs(model, unit)
    files.name_axes(model, unit.dynamic_axes)
    share_matrices(model)
    return model


def _name_outputs(model: ir.Model, unit: ExportUnit) -> None:
    outputs = model.graph.outputs
    if len(outputs) < len(unit.outputs):
        what = f"the module of {unit.role!r} gives {len(outputs)} outputs, and {', '.join(unit.outputs)} are declared"
        raise ModelError(what, fix="declare the outputs that it gives in the task's export_units")
    del outputs[len(unit.outputs) :]
    for value, name in zip(outputs, unit.outputs, strict=True):
        value.name = name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress off stdout, which carries results, and its internal notices off stderr."""
    # Versions newer than the exporter was tested with are held to account by the parity check.
    loggers = [logging.getLogger(name) for name in ("torch.onnx._internal.exporter._registration", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # torch 2.13's own pytree calls what it deprecates.
            warnings.filterwarnings("ignore", message=r".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
