"""Variants for a GPU: fp16 and bf16 with float32 islands, int8 laid out for TensorRT, alone or both."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from modelmill.core import hardware
from modelmill.core.contract import JSON
from modelmill.core.model import Component, ModelDocument, copy_companions, read_model, write_model
from modelmill.graphs import files
from modelmill.graphs.halves import BF16, FP16, Halved, does_not_fit, float_values, halve, simulate
from modelmill.steps.calibrate_quantize.calibration import find_ranges
from modelmill.steps.calibrate_quantize.contract import Calibration, Scheme, Variant
from modelmill.steps.calibrate_quantize.histograms import Range
from modelmill.steps.calibrate_quantize.tensorrt import observed_for_tensorrt, quantize_for_tensorrt
from modelmill.targets.base import Precision

_TYPES = {Precision.FP16: FP16, Precision.BF16: BF16}
Ranges = Mapping[str, Mapping[str, Range]]


@dataclass
class GpuVariant:
    """One variant on its way.

    Attributes:
        document: The float32 model.
        folder: Where it lies.
        variant: What to make.
        batches: Encoded calibration rows, anew at each call, under a label for people.
        kept: Role → products that are not quantized.
        facts: What was done, by kind and role.
    """

    document: ModelDocument
    folder: Path
    variant: Variant
    batches: Callable[[str], Iterable[Mapping[str, np.ndarray]]]
    kept: Mapping[str, Set[str]]
    facts: dict[str, JSON] = field(default_factory=dict)

    def make(self, output: Path) -> dict[str, Component]:
        """Write the graphs.

        Raises:
            DataError: Ranges are needed, and there are too few calibration rows.
            ModelError: A weight is not finite, or the graph's opset has not what the variant takes.
        """
        dtype, static = _TYPES.get(self.variant.rest), self.variant.scheme is Scheme.STATIC
        if dtype is None and not static:
            for component in self.document.components.values():
                for name in (component.file, *component.external_data):
                    shutil.copyfile(self.folder / name, output / name)
            return self.document.components
        # bf16 reaches as far as float32 does: nothing has to be looked at.
        extremes = self._ranges("magnitudes", Calibration.MINMAX, float_values) if dtype is FP16 else {}
        ranges = self._static_ranges(extremes) if static else {}
        components: dict[str, Component] = {}
        quantized: dict[str, JSON] = {}
        halved: dict[str, JSON] = {}
        for role, component in self.document.components.items():
            graph = files.load(self.folder / component.file)
            if static:
                counts = quantize_for_tensorrt(
                    graph, ranges[role], residuals=self.variant.residuals, kept=self.kept[role]
                )
                quantized[role] = dict(counts)
            if dtype is not None:
                seen = extremes.get(role, {})
                beyond = {name for name, (low, high) in seen.items() if does_not_fit(low, high, dtype)}
                halved[role] = _fact(halve(graph, dtype, beyond), len(beyond))
            components[role] = files.component_of(graph, role, files.save(graph, output, role))
        if quantized:
            self.facts["quantized"] = quantized
        if halved:
            self.facts[self.variant.rest.value] = halved
        return components

    def _static_ranges(self, extremes: Ranges) -> Ranges:
        if extremes and self.variant.calibration is Calibration.MINMAX:
            return extremes
        pick = {
            role: partial(observed_for_tensorrt, residuals=self.variant.residuals, kept=self.kept[role])
            for role in self.document.components
        }
        batches = self.batches("calibrate")
        return find_ranges(self.document, self.folder, batches, self.variant.calibration, pick, hardware.threads())

    def _ranges(self, label: str, calibration: Calibration, pick: Callable[[ir.Model], list[ir.Value]]) -> Ranges:
        roles = dict.fromkeys(self.document.components, pick)
        return find_ranges(self.document, self.folder, self.batches(label), calibration, roles, hardware.threads())


def write_simulation(source: Path, destination: Path) -> None:
    """A copy of a model artifact whose graphs the CPU provider computes with a GPU's rounding (`simulate`)."""
    document = read_model(source)
    copy_companions(document, source, destination)
    components = {}
    for role, component in document.components.items():
        graph = files.load(source / component.file)
        simulate(graph)
        components[role] = files.component_of(graph, role, files.save(graph, destination, role))
    write_model(destination, document.model_copy(update={"components": components}))


def _fact(halved: Halved, beyond: int) -> dict[str, JSON]:
    islands: dict[str, JSON] = dict(halved.islands)
    return {
        "operators": sum(halved.halved.values()),
        "float32_islands": islands,
        "casts": halved.casts,
        "values_beyond": beyond,
    }
