"""Times the peers' models and the line's in one fresh process: ``python -m peers.time_models PLAN OUTPUT``.

``PLAN`` is a document of `Plan`'s fields; ``OUTPUT`` becomes a document of `Found`'s.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelmill.core.progress import LineProgress
from modelmill.measuring.models import open_artifact
from modelmill.measuring.rounds import Rounds, interleave
from modelmill.targets.base import Runtime
from peers.make_peer import Batches, read_batches
from peers.peers import PEERS, Run

BASELINE = "PyTorch eager"
AGAIN = "PyTorch eager, again"
"""The baseline timed a second time: what this machine makes of no difference at all."""
OURS = {"modelmill on onnxruntime": Runtime.ONNXRUNTIME, "modelmill on openvino": Runtime.OPENVINO}
LEAST_ROUNDS = 4


@dataclass(frozen=True)
class Plan:
    """What one process does.

    Attributes:
        checkpoint: The fine-tuned model.
        exported: The line's float32 graph.
        made: Peer → the folder with what was made, or "" where nothing was to be made.
        artifacts: Ours → its model artifact.
        cells: Name → an .npz of padded batches.
        rows: An .npz of padded batches to predict, or "" to predict nothing.
        references: Class numbers of these rows, in order.
        threads: For each model.
        seconds: For each cell, all models together.
        seed: Draws the order inside each round.
    """

    checkpoint: str
    exported: str
    made: Mapping[str, str]
    artifacts: Mapping[str, str]
    cells: Mapping[str, str]
    rows: str
    references: Sequence[int]
    threads: int
    seconds: float
    seed: int


@dataclass(frozen=True)
class Found:
    """What one process found.

    Attributes:
        seconds: Cell → model → the duration of each timed call, in order.
        turns: Cell → timed calls of a turn, as `Rounds.turn`.
        failures: Model → why it did not run.
        accuracy: Model → share of the rows that it got right; empty where nothing was to be predicted.
    """

    seconds: Mapping[str, Mapping[str, Sequence[float]]]
    turns: Mapping[str, int]
    failures: Mapping[str, str]
    accuracy: Mapping[str, float]

    def rounds(self, cell: str) -> Rounds:
        """A cell's timings."""
        return Rounds({name: np.asarray(values) for name, values in self.seconds[cell].items()}, self.turns[cell])


def main() -> None:
    """Open, predict where asked, time, write."""
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text("utf-8")))
    runs, failures = _open(plan)
    accuracy: dict[str, float] = {}
    if plan.rows:
        whole = read_batches(Path(plan.rows))
        for name, run in list(runs.items()):
            try:
                predicted = np.concatenate([np.argmax(run(batch), axis=-1) for batch in whole])
            except Exception as error:  # a peer's model may fail on shapes that it was not made with
                failures[name] = _in_a_line(error)
                del runs[name]
                continue
            accuracy[name] = float((predicted == np.asarray(plan.references)).mean())
    # One peer after the other has been opened, and may leave another number.
    torch.set_num_threads(plan.threads)
    timed = {cell: _time(runs, cell, read_batches(Path(path)), plan) for cell, path in plan.cells.items()}
    found = Found(
        seconds={
            cell: {name: values.tolist() for name, values in each.seconds.items()} for cell, each in timed.items()
        },
        turns={cell: each.turn for cell, each in timed.items()},
        failures=failures,
        accuracy=accuracy,
    )
    Path(sys.argv[2]).write_text(json.dumps(asdict(found)), "utf-8")


def _open(plan: Plan) -> tuple[dict[str, Run], dict[str, str]]:
    runs: dict[str, Run] = {}
    failures: dict[str, str] = {}
    for peer in PEERS:
        if peer.name not in plan.made:
            continue
        try:
            runs[peer.name] = peer.open_model(
                Path(plan.checkpoint), Path(plan.exported), Path(plan.made[peer.name]), plan.threads
            )
        except Exception as error:  # torch.compile wants a compiler, and each peer has errors of its own
            failures[peer.name] = _in_a_line(error)
    for name, artifact in plan.artifacts.items():
        model = open_artifact(Path(artifact), OURS[name], plan.threads)
        runs[name] = lambda batch, model=model: model.task.outputs_of(model.session.run(batch))
    return runs, failures


def _time(runs: Mapping[str, Run], cell: str, batches: Batches, plan: Plan) -> Rounds:
    def call_of(run: Run) -> Any:
        return lambda _: [run(batch) for batch in batches]

    calls = {name: call_of(run) for name, run in runs.items()}
    if BASELINE in calls:
        calls[AGAIN] = calls[BASELINE]
    with LineProgress(sys.stderr).bar(cell, plan.seconds, "s") as bar:
        return interleave(calls, seconds=plan.seconds, seed=plan.seed, bar=bar, least=LEAST_ROUNDS)


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['?'])[0][:120]}"


if __name__ == "__main__":
    main()
