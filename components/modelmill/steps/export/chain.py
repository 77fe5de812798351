"""A task's torch modules in the order of its execution: samples for tracing the later ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from modelmill.core.errors import ModelError
from modelmill.core.model import Execution
from modelmill.tasks.base import ExportUnit

Tensors = dict[str, torch.Tensor]


def stage_inputs(
    units: Sequence[ExportUnit], execution: Execution, batch: Mapping[str, np.ndarray]
) -> Iterator[tuple[ExportUnit, Tensors]]:
    """Each unit with the tensors that reach it, in the order in which the units run.

    A later unit's inputs are what the earlier modules really give, so that samples have real shapes and values.

    Raises:
        ModelError: A unit takes a value that nothing gives, or its module does not give what it declares.
    """
    by_role = {unit.role: unit for unit in units}
    values: Tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}
    for stage in execution.stages:
        unit = by_role[stage.component]
        missing = sorted(value for value in stage.feeds.values() if value not in values)
        if missing:
            what = f"the graph {unit.role!r} takes {', '.join(missing)}, which neither the tokenizer nor a graph gives"
            raise ModelError(what, where="tokenizer_config.json: model_input_names", fix="use the model's tokenizer")
        tensors = {name: values[value] for name, value in stage.feeds.items()}
        yield unit, tensors
        with torch.no_grad():
            found = named_outputs(unit, unit.module(**tensors))
        values.update({value: found[output] for output, value in stage.gives.items()})


def named_outputs(unit: ExportUnit, output: Any) -> Tensors:
    """What a unit's module gave, by the names that the unit declares.

    Args:
        unit: Its outputs are picked by name from a mapping (transformers' ModelOutput is one), by order otherwise.
        output: A tensor, a sequence of them or a mapping.

    Raises:
        ModelError: A declared output is not there.
    """
    if isinstance(output, Mapping) and set(unit.outputs) <= set(output):
        return {name: output[name] for name in unit.outputs}
    members = [output] if isinstance(output, torch.Tensor) else list(getattr(output, "values", lambda: output)())
    if len(members) < len(unit.outputs):
        what = f"the module of {unit.role!r} gives {len(members)} values, and {', '.join(unit.outputs)} are declared"
        raise ModelError(what, fix="declare the outputs that it gives in the task's export_units")
    return dict(zip(unit.outputs, members, strict=False))
