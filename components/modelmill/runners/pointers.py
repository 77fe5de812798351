"""Where a task's inputs lie, as the tasks before it printed it: ``PORT=KEY#OUTPUT``, a lane's after a dot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelmill.core import records
from modelmill.core.errors import StoreError, UsageError
from modelmill.core.store import Store
from modelmill.line import Task


def digests_of(store: Store, task: Task, inputs: Sequence[str]) -> dict[str, str | dict[str, str]]:
    """The artifacts that a task's inputs name, per port; per port and lane where a port merges lanes."""
    merged = {port.name for port in task.contract.input_ports if port.many}
    found: dict[str, Any] = {port: {} for port in merged}
    for text in inputs:
        name, key, output = pointed(text)
        port, _, lane = name.partition(".")
        digest = output_of(store, key, output)
        if port in merged:
            found[port][lane] = digest
        else:
            found[port] = digest
    if set(found) != set(task.feeds):
        what = f"the task {task.id} takes the inputs {', '.join(task.feeds) or 'none'}"
        raise UsageError(what, where="--input", fix="give each once as PORT=KEY#OUTPUT")
    return found


def pointed(text: str) -> tuple[str, str, str]:
    """The input, the step key and the output that a pointer names."""
    name, _, rest = text.partition("=")
    key, _, output = rest.partition("#")
    if not (name and key.startswith("sha256:") and output):
        what = f"{text!r} is not of the form PORT=KEY#OUTPUT"
        raise UsageError(what, where="--input", fix="KEY is what the task that feeds this one printed")
    return name, key, output


def output_of(store: Store, key: str, port: str) -> str:
    """The digest of a step's output that the store holds whole."""
    record, reasons = records.find(store, key)
    if record is None or port not in record.outputs:
        what = f"the store does not hold the output {port!r} of {key}"
        what += f" ({'; '.join(reasons)})" if reasons else ""
        raise StoreError(
            what, where=store.uri, fix="clear the task that made it, or start the run again: it is made anew"
        )
    return record.outputs[port]
