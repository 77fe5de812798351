"""The latency of one cell."""

from __future__ import annotations

from collections.abc import Mapping

from modelmill.core.evidence import Cell, EncoderLatency
from modelmill.core.progress import Progress
from modelmill.measuring.cells import cell_calls
from modelmill.measuring.models import OpenModel
from modelmill.measuring.rounds import interleave
from modelmill.steps.evaluate.comparison import BASELINE, CANDIDATE, compare, with_noise


def time_cell(
    models: Mapping[str, OpenModel], cell: Cell, seconds: float, seed: int, progress: Progress
) -> EncoderLatency:
    """Time a forward pass over the cell's shape.

    Args:
        models: baseline, exported, optimized, candidate.
        cell: Not longer than the models' maximum.
        seconds: Budget.
        seed: Of tokens, order and resamples.
        progress: Told the result.
    """
    label = f"batch {cell.batch_size}, length {cell.sequence_length}"
    with progress.bar(f"latency, {label}", seconds, "s") as bar:
        rounds = interleave(with_noise(cell_calls(models, cell, seed)), seconds=seconds, seed=seed, bar=bar)
    found = compare(rounds, seed)
    samples = {BASELINE: BASELINE, "unquantized": found.unquantized, CANDIDATE: CANDIDATE}
    latency = EncoderLatency(
        batch_size=cell.batch_size,
        sequence_length=cell.sequence_length,
        baseline_ms_p50=rounds.percentile_ms(BASELINE, 50),
        baseline_ms_p95=rounds.percentile_ms(BASELINE, 95),
        unquantized_ms_p50=rounds.percentile_ms(found.unquantized, 50),
        candidate_ms_p50=rounds.percentile_ms(CANDIDATE, 50),
        candidate_ms_p95=rounds.percentile_ms(CANDIDATE, 95),
        speedup=found.speedup.value,
        speedup_ci=found.speedup.interval,
        gain_over_unquantized=found.gain.value,
        gain_over_unquantized_ci=found.gain.interval,
        unquantized=found.unquantized,
        noise_ratio_ci=found.noise,
        speedup_difference=found.speedup_difference,
        gain_difference=found.gain_difference,
        samples_ms={key: rounds.milliseconds(name) for key, name in samples.items()},
    )
    low, high = latency.speedup_ci
    progress.fact(
        f"{label}: {latency.baseline_ms_p50:.2f} → {latency.candidate_ms_p50:.2f} ms, "
        f"{latency.speedup:.2f} × ({low:.2f} to {high:.2f}), {rounds.count} rounds"
    )
    return latency
