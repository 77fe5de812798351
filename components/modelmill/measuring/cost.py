"""What texts cost at a measured speed. Light: gate uses it, too."""

from __future__ import annotations

SECONDS_PER_HOUR = 3600
MILLION = 1_000_000


def cost_of_a_million(texts_per_second: float, threads: int, core_hour: float) -> float:
    """Price of a million texts, tokenising left out, on as many cores as there are threads.

    Args:
        texts_per_second: Of the model on all its threads.
        threads: Cores that are paid for.
        core_hour: Price of one core for an hour; the result is in its currency.
    """
    return MILLION / texts_per_second / SECONDS_PER_HOUR * threads * core_hour
