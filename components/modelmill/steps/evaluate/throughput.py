"""Texts a second, on evaluation texts at their real lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modelmill.core.evidence import Throughput
from modelmill.core.progress import Progress
from modelmill.core.rows import Row
from modelmill.measuring.models import OpenModel
from modelmill.measuring.predicting import padded_batches, plan_of
from modelmill.measuring.ratios import mean_seconds
from modelmill.measuring.rounds import Call, interleave
from modelmill.steps.evaluate.comparison import BASELINE, CANDIDATE, compare, with_noise
from modelmill.tasks.base import Batch

PIECES = 8
"""A pass is timed in pieces of like work, so that the models take turns within it."""


def time_texts(
    models: Mapping[str, OpenModel], rows: Sequence[Row], seconds: float, seed: int, progress: Progress
) -> Throughput:
    """Time passes over rows in the batch plan that evaluate predicts in.

    Args:
        models: baseline, exported, optimized, candidate; they tokenise alike.
        rows: At least one.
        seconds: Budget; one pass is made whatever it takes.
        seed: Of order and resamples.
        progress: Told the result.
    """
    model = models[BASELINE]
    features = model.task.encode(model.processor, rows, model.max_length)
    plan = plan_of(features)
    pieces = min(PIECES, len(plan.batches))
    shards = [
        padded_batches(model.task, model.processor, features, plan.shard(index, pieces)) for index in range(pieces)
    ]
    with progress.bar("throughput", seconds, "s") as bar:
        calls = with_noise({name: _pieces(model, shards) for name, model in models.items()})
        rounds = interleave(calls, seconds=seconds, seed=seed, bar=bar, multiple_of=pieces)
    # Pieces hold different work: their mean is a pass's time, their median no one's.
    found = compare(rounds, seed, statistic=np.mean)
    passes = rounds.count // pieces

    def per_second(name: str) -> float:
        return round(len(rows) * passes / float(rounds.seconds[name].sum()), 2)

    low, high = (len(rows) / pieces / bound for bound in reversed(mean_seconds(rounds, CANDIDATE, seed=seed).interval))
    result = Throughput(
        texts=len(rows),
        baseline_texts_per_second=per_second(BASELINE),
        unquantized_texts_per_second=per_second(found.unquantized),
        candidate_texts_per_second=per_second(CANDIDATE),
        candidate_texts_per_second_ci=(round(low, 2), round(high, 2)),
        passes=passes,
        unquantized=found.unquantized,
        speedup=found.speedup.value,
        speedup_ci=found.speedup.interval,
        gain_over_unquantized=found.gain.value,
        gain_over_unquantized_ci=found.gain.interval,
        noise_ratio_ci=found.noise,
        speedup_difference=found.speedup_difference,
        gain_difference=found.gain_difference,
    )
    progress.fact(
        f"{len(rows)} evaluation texts: {result.baseline_texts_per_second:.0f} → "
        f"{result.candidate_texts_per_second:.0f} texts a second in {passes} passes"
    )
    return result


def choose_rows(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """``count`` rows drawn without replacement, in their order; all where there are fewer."""
    if len(rows) <= count:
        return list(rows)
    chosen = np.random.default_rng(seed).choice(len(rows), size=count, replace=False)
    return [rows[index] for index in np.sort(chosen)]


def _pieces(model: OpenModel, shards: Sequence[Sequence[Batch]]) -> Call:
    def call(number: int) -> None:
        for batch in shards[number % len(shards)]:
            model.session.run(batch)

    return call
