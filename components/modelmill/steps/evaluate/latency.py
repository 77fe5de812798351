"""The latency of one cell, and of single texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelmill.core.evidence import Cell, EncoderLatency, TextLatency
from modelmill.core.progress import Progress
from modelmill.measuring.rounds import Rounds, median_ms, pooled_ms
from modelmill.measuring.timing import Timed
from modelmill.steps.evaluate.comparison import BASELINE, CANDIDATE, Comparison, compare


def latency_of(timed: Timed, cell: Cell, seed: int, progress: Progress) -> EncoderLatency:
    """What the timings of a forward pass over the cell's shape say.

    Args:
        timed: baseline, exported, optimized, candidate, and the baseline again.
        cell: Not longer than the models' maximum.
        seed: Of the resamples.
        progress: Told the result.
    """
    processes = timed.processes
    found = compare(processes, seed)
    latency = EncoderLatency(
        batch_size=cell.batch_size,
        sequence_length=cell.sequence_length,
        **_medians(processes, found),
        baseline_ms_p95=pooled_ms(processes, BASELINE, 95),
        candidate_ms_p95=pooled_ms(processes, CANDIDATE, 95),
        **found.fields,
        samples_ms={
            key: [value for rounds in processes for value in rounds.milliseconds(name)]
            for key, name in found.models.items()
        },
        samples_each=[rounds.count for rounds in processes],
    )
    low, high = latency.speedup_ci
    progress.fact(
        f"batch {cell.batch_size}, length {cell.sequence_length}: {latency.baseline_ms_p50:.2f} → "
        f"{latency.candidate_ms_p50:.2f} ms, {latency.speedup:.2f} × ({low:.2f} to {high:.2f}), {timed.count} rounds"
    )
    return latency


def text_latency_of(timed: Timed, texts: int, seed: int, progress: Progress) -> TextLatency:
    """What the timings of texts at their real lengths, one a call, say.

    Args:
        timed: baseline, exported, optimized, candidate, and the baseline again.
        texts: Drawn from, in an order of each process's own that is the same for all models.
        seed: Of the resamples.
        progress: Told the result.
    """
    processes = timed.processes
    found = compare(processes, seed)
    percentiles: dict[str, Any] = {
        f"{key}_ms_p{percent}": pooled_ms(processes, name, percent)
        for key, name in found.models.items()
        for percent in (95, 99)
    }
    latency = TextLatency(
        texts=texts,
        **_medians(processes, found),
        **percentiles,
        **found.fields,
    )
    progress.fact(
        f"one evaluation text at a time: {latency.baseline_ms_p50:.2f} → {latency.candidate_ms_p50:.2f} ms, at most "
        f"{latency.candidate_ms_p99:.2f} ms for 99 of 100, {timed.count} rounds"
    )
    return latency


def _medians(processes: Sequence[Rounds], found: Comparison) -> dict[str, Any]:
    return {f"{key}_ms_p50": median_ms(processes, name) for key, name in found.models.items()}
