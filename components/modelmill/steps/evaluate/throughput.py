"""Texts a second, on evaluation texts at their real lengths."""

from __future__ import annotations

import numpy as np

from modelmill.core.evidence import Throughput
from modelmill.core.progress import Progress
from modelmill.measuring.ratios import mean_seconds
from modelmill.measuring.timing import Timed
from modelmill.steps.evaluate.comparison import BASELINE, CANDIDATE, compare


def throughput_of(timed: Timed, texts: int, seed: int, progress: Progress) -> Throughput:
    """What the timings of passes over texts, in the batch plan that evaluate predicts in, say.

    Args:
        timed: baseline, exported, optimized, candidate, and the baseline again.
        texts: Of a pass.
        seed: Of the resamples.
        progress: Told the result.
    """
    # Pieces of a pass hold different work: their mean is a pass's time, their median no one's.
    found = compare(timed.processes, seed, statistic=np.mean)

    def per_second(name: str) -> float:
        return round(texts / mean_seconds(timed.processes, name, seed=seed).value, 2)

    low, high = (texts / bound for bound in reversed(mean_seconds(timed.processes, CANDIDATE, seed=seed).interval))
    result = Throughput(
        texts=texts,
        baseline_texts_per_second=per_second(BASELINE),
        unquantized_texts_per_second=per_second(found.unquantized),
        candidate_texts_per_second=per_second(CANDIDATE),
        candidate_texts_per_second_ci=(round(low, 2), round(high, 2)),
        passes=timed.passes,
        **found.fields,
    )
    progress.fact(
        f"{texts} evaluation texts: {result.baseline_texts_per_second:.0f} → "
        f"{result.candidate_texts_per_second:.0f} texts a second in {timed.passes} passes"
    )
    return result
