"""A model made as a variant says: GELU, smoothing, ranges, int8."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from modelmill.core import hardware
from modelmill.core.contract import JSON
from modelmill.core.errors import ModelError
from modelmill.core.model import ModelDocument, copy_companions, read_model, write_model
from modelmill.core.progress import Progress
from modelmill.core.rows import read_dataset
from modelmill.graphs import files
from modelmill.graphs.gelu import approximate_gelu
from modelmill.graphs.padding import join_branches, load_joined, split_by_padding
from modelmill.steps.calibrate_quantize.calibration import (
    calibration_batches,
    find_ranges,
    require_rows,
    spread_rows,
    watch,
)
from modelmill.steps.calibrate_quantize.contract import Gelu, Scheme, Variant
from modelmill.steps.calibrate_quantize.dynamic import quantize_dynamic
from modelmill.steps.calibrate_quantize.for_gpu import GpuVariant
from modelmill.steps.calibrate_quantize.histograms import Range
from modelmill.steps.calibrate_quantize.memory_budget import Budget
from modelmill.steps.calibrate_quantize.operands import names_of
from modelmill.steps.calibrate_quantize.products import products
from modelmill.steps.calibrate_quantize.smoothing import ChannelMaxima, smooth, smoothable
from modelmill.steps.calibrate_quantize.space import GPU
from modelmill.steps.calibrate_quantize.static import observed, quantize_static
from modelmill.targets.base import Runtime
from modelmill.targets.pytorch import load_processor
from modelmill.tasks.base import Task

_INT8_PAIRS = frozenset({Runtime.OPENVINO, Runtime.ONNXRUNTIME_TENSORRT})
"""Runtimes with int8 kernels for products of two activations, and that quantize and multiply at once."""


@dataclass
class _Making:
    """A model on its way to a variant; what a stage changed is in ``folder``, as a model artifact of float32 graphs."""

    document: ModelDocument
    folder: Path
    variant: Variant
    task: Task
    processor: Any
    rows: Path
    pairs: bool
    progress: Progress
    facts: dict[str, JSON] = field(default_factory=dict)

    def batches(self, label: str) -> Iterator[Mapping[str, np.ndarray]]:
        require_rows(self.rows, self.task)
        count = min(self.variant.calibration_rows, read_dataset(self.rows).count)
        most = self.variant.max_calibration_rss_bytes
        rows = spread_rows(self.rows, self.variant.calibration_rows)
        with self.progress.bar(label, count, "rows") as bar:
            budget = Budget(most) if most is not None else None
            yield from calibration_batches(self.task, self.processor, rows, self.document.max_length, bar, budget)

    def graph(self, role: str) -> ir.Model:
        return files.load(self.folder / self.document.components[role].file)

    def replace(self, graphs: Mapping[str, ir.Model], folder: Path) -> None:
        """Go on with other graphs."""
        folder.mkdir()
        components = {
            role: files.component_of(graph, role, files.save(graph, folder, role)) for role, graph in graphs.items()
        }
        self.document, self.folder = self.document.model_copy(update={"components": components}), folder


def make_variant(
    model: Path, calibrate: Path, output: Path, variant: Variant, task: Task, runtime: Runtime, progress: Progress
) -> dict[str, JSON]:
    """Make the model artifact that a variant describes.

    Args:
        model: The optimized float32 model.
        calibrate: Rows for ranges.
        output: An empty directory for the variant's artifact.
        variant: What to make.
        task: The model's task.
        runtime: What will run it.
        progress: Where to report to.

    Returns:
        What was quantized (role → operator → how many), smoothed and approximated.

    Raises:
        DataError: The variant needs ranges, and calibration rows are too few or another task's.
        RecipeError: Calibrating takes more memory than the variant allows.
        ModelError: A graph is damaged, or the variant names a product that the model does not have.
    """
    document = read_model(model)
    copy_companions(document, model, output)
    pairs = quantizes_pairs(variant.scheme, runtime)
    making = _Making(document, model, variant, task, load_processor(model), calibrate, pairs, progress)
    kept = _kept(making)
    with tempfile.TemporaryDirectory() as folder:
        if variant.scheme is not Scheme.NONE:
            _join(making, Path(folder) / "joined")
        if variant.gelu is Gelu.TANH:
            _approximate(making, Path(folder) / "gelu")
        if variant.scheme is not Scheme.NONE and variant.smooth is not None:
            _smooth(making, variant.smooth, kept, Path(folder) / "smooth")
        if runtime in GPU:
            made = GpuVariant(making.document, making.folder, variant, making.batches, kept)
            components = made.make(output)
            making.facts |= made.facts
        else:
            components = _quantize(making, output, kept)
    facts = {**document.facts, **making.facts, "scheme": variant.scheme.value} if making.facts else document.facts
    changes = {"precision": variant.precision.value, "rest": variant.rest.value, "session": variant.session}
    write_model(output, document.model_copy(update={**changes, "components": components, "facts": facts}))
    return making.facts


def quantizes_pairs(scheme: Scheme, runtime: Runtime) -> bool:
    """Whether products of two activations become int8, too."""
    return scheme is Scheme.STATIC and runtime in _INT8_PAIRS


def product_names(model: Path, pairs: bool) -> list[str]:
    """``role/product`` of all that a variant may keep in float32, in the graphs' order."""
    return [
        f"{role}/{name}"
        for role, component in read_model(model).components.items()
        for name in names_of(load_joined(model / component.file), pairs=pairs)
    ]


def _kept(making: _Making) -> dict[str, Set[str]]:
    """Role → names of the products that stay float32."""
    # Read only where it is asked for: a search makes a variant for each trial, and few keep anything.
    there = product_names(making.folder, making.pairs) if making.variant.keep_float else []
    unknown = [name for name in making.variant.keep_float if name not in there]
    if unknown:
        what = f"the choice keeps {unknown[0]} in float32, and the model has no such product"
        raise ModelError(what, where="keep_float", fix="choose again: the choice was made for another model")
    return {
        role: {name.partition("/")[2] for name in making.variant.keep_float if name.partition("/")[0] == role}
        for role in making.document.components
    }


def _join(making: _Making, folder: Path) -> None:
    graphs = {role: making.graph(role) for role in making.document.components}
    if sum(join_branches(graph) for graph in graphs.values()):
        making.replace(graphs, folder)


def _approximate(making: _Making, folder: Path) -> None:
    graphs = {role: making.graph(role) for role in making.document.components}
    making.facts["approximate_gelu"] = {role: approximate_gelu(graph) for role, graph in graphs.items()}
    making.replace(graphs, folder)


def _smooth(making: _Making, strength: float, kept: Mapping[str, Set[str]], folder: Path) -> None:
    def pick(model: ir.Model) -> list[ir.Value]:
        return [item.x for item in smoothable(model, multiply=making.pairs)]

    roles = list(making.document.components)
    largest = watch(
        making.document,
        making.folder,
        making.batches("largest of each channel"),
        dict.fromkeys(roles, pick),
        ChannelMaxima,
        hardware.threads(),
    )
    graphs = {role: making.graph(role) for role in roles}
    counted: dict[str, JSON] = {}
    for role, graph in graphs.items():
        total = len(products(graph))
        maxima = {name: seen.largest for name, seen in largest[role].items()}
        done = smooth(graph, maxima, strength, multiply=making.pairs, kept=kept[role])
        counted[role] = {"smoothed": done, "not_smoothed": total - done}
    making.facts["smoothed"] = counted
    making.replace(graphs, folder)


def _quantize(making: _Making, output: Path, kept: Mapping[str, Set[str]]) -> dict[str, Any]:
    variant, roles = making.variant, list(making.document.components)
    if variant.scheme is Scheme.NONE:
        for component in making.document.components.values():
            for name in (component.file, *component.external_data):
                shutil.copyfile(making.folder / name, output / name)
        return making.document.components
    ranges: Mapping[str, Mapping[str, Range]] = {}
    if variant.scheme is Scheme.STATIC:
        ranges = find_ranges(
            making.document,
            making.folder,
            making.batches("calibrate"),
            variant.calibration,
            {role: partial(observed, pairs=making.pairs, kept=kept[role]) for role in roles},
            hardware.threads(),
        )
    components = {}
    counts: dict[str, JSON] = {}
    with making.progress.bar("quantize", len(roles), "graphs") as bar:
        for role in roles:
            graph = making.graph(role)
            if variant.scheme is Scheme.STATIC:
                counted = quantize_static(
                    graph,
                    ranges[role],
                    embeddings=variant.embeddings,
                    reduce_range=variant.reduce_range,
                    symmetric=variant.symmetric,
                    pairs=making.pairs,
                    kept=kept[role],
                )
            else:
                counted = quantize_dynamic(
                    graph, embeddings=variant.embeddings, reduce_range=variant.reduce_range, kept=kept[role]
                )
            split_by_padding(graph)
            counts[role] = dict(counted)
            components[role] = files.component_of(graph, role, files.save(graph, output, role))
            bar.advance()
    making.facts["quantized"] = counts
    return components
