"""The checks of what a candidate takes: time, bytes, memory, money; and of what its batches do to it."""

from __future__ import annotations

from collections.abc import Sequence

from modelmill.core.errors import ModelError, RecipeError
from modelmill.core.evidence import Check, EncoderLatency, Interval, Measurements, Neighbours, Throughput, Verdict
from modelmill.measuring.cost import cost_of_a_million
from modelmill.steps.gate.contract import Settings
from modelmill.steps.gate.words import significant, size


def checks(measured: Measurements, neighbours: Neighbours | None, settings: Settings) -> list[Check]:
    """Every check that the policy asks for.

    Raises:
        ModelError: What a check needs was not measured.
        RecipeError: Costs are judged, and no price is known.
    """
    policy, found = settings.policy, []
    if policy.min_speedup is not None:
        found.append(check_speedup(_first_cell(measured, "min_speedup"), policy.min_speedup))
    if policy.min_gain_over_unquantized is not None:
        cell = _first_cell(measured, "min_gain_over_unquantized")
        found.append(check_gain(cell, policy.min_gain_over_unquantized))
    if policy.max_size_ratio is not None:
        found.append(check_size(measured, policy.max_size_ratio))
    if policy.max_peak_rss_bytes is not None:
        found.append(check_memory(measured, policy.max_peak_rss_bytes))
    if policy.max_load_seconds is not None:
        found.append(check_load(measured, policy.max_load_seconds))
    if policy.max_cost_per_million_texts is not None:
        if settings.core_hour is None:
            what = "max_cost_per_million_texts judges a cost, and no price is known"
            fix = "add prices: {core_hour: …} to the deployment; in a pipeline of your own set core_hour"
            raise RecipeError(what, where="gate.max_cost_per_million_texts", fix=fix)
        found.append(check_cost(measured, policy.max_cost_per_million_texts, settings.core_hour, settings.currency))
    if policy.max_batch_flips is not None:
        if neighbours is None:
            what = "max_batch_flips judges predictions in other batches, and the candidate's hold none"
            fix = "run evaluate-candidate of this version, or leave the check out"
            raise ModelError(what, where="gate.max_batch_flips", fix=fix)
        found.append(check_neighbours(neighbours, policy.max_batch_flips))
    return found


def check_speedup(cell: EncoderLatency, least: float) -> Check:
    """Whether the candidate is as much faster than the baseline as demanded, by the bounds of the measured ratio."""
    return _ratio("min_speedup", "speed-up", cell, cell.speedup, cell.speedup_ci, least)


def check_gain(cell: EncoderLatency, least: float) -> Check:
    """The same over the fastest unquantized model on the same runtime: what quantizing itself gains."""
    what = f"gain over the {cell.unquantized or 'best unquantized'} model on the same runtime"
    return _ratio(
        "min_gain_over_unquantized", what, cell, cell.gain_over_unquantized, cell.gain_over_unquantized_ci, least
    )


def check_size(measurements: Measurements, most: float) -> Check:
    """Whether the graphs are as small as demanded; exact."""
    within = measurements.size_ratio <= most
    words = (
        f"The graphs take {measurements.size_ratio:.3f} of the checkpoint's bytes, "
        f"{'within' if within else 'more than'} the {most:g} allowed."
    )
    return _exact("max_size_ratio", within, most, measurements.size_ratio, words)


def check_memory(measurements: Measurements, most: int) -> Check:
    """Whether the largest of the measured processes stayed within the memory allowed."""
    peak = measurements.peak_rss_bytes
    within = peak <= most
    words = (
        f"A process with the candidate alone took {size(peak)} at its peak, the largest of those measured, "
        f"{'within' if within else 'more than'} the {size(most)} allowed."
    )
    return _exact("max_peak_rss_bytes", within, most, peak, words)


def check_load(measurements: Measurements, most: float) -> Check:
    """Whether every measured process answered in time; some in time and some late decide nothing."""
    each = measurements.load_seconds_each or [measurements.load_seconds]
    least, longest = min(each), max(each)
    took = f"{significant(least)} to {significant(longest)} s" if len(each) > 1 else f"{significant(longest)} s"
    words = f"From file to first answer took {took} in {len(each)} fresh process{'es' if len(each) > 1 else ''}"
    if longest <= most:
        verdict, words = Verdict.PASS, f"{words}, within the {most:g} s allowed."
    elif least > most:
        verdict, words = Verdict.FAIL, f"{words}, more than the {most:g} s allowed."
    else:
        verdict = Verdict.INCONCLUSIVE
        words = f"{words}, and {most:g} s is allowed: that cannot tell. Measure again when nothing else runs."
    return Check(
        name="max_load_seconds",
        verdict=verdict,
        threshold=most,
        value=measurements.load_seconds,
        interval=(least, longest),
        words=words,
    )


def check_cost(measurements: Measurements, most: float, core_hour: float, currency: str) -> Check:
    """Whether a million evaluation texts cost no more than allowed, at the throughput's bounds.

    Args:
        measurements: Of the candidate; the cores are the threads it ran on.
        most: In the currency.
        core_hour: Price of one core for an hour.
        currency: For people.

    Raises:
        ModelError: No throughput was measured.
    """
    throughput = measurements.throughput
    if throughput is None:
        what = "max_cost_per_million_texts judges the throughput on texts, and none was measured"
        fix = "give measure.throughput_rows a number above 0 in the recipe"
        raise ModelError(what, where="gate.max_cost_per_million_texts", fix=fix)
    threads = measurements.hardware.threads
    slow, fast = _texts_per_second(throughput)
    lower, cost, upper = (
        cost_of_a_million(rate, threads, core_hour) for rate in (fast, throughput.candidate_texts_per_second, slow)
    )
    of = f"A million evaluation texts, without tokenising, on {threads} core{'s' if threads > 1 else ''} at "
    of += f"{core_hour:g} {currency} a core-hour cost"
    if upper <= most:
        verdict, words = Verdict.PASS, f"{of} at most {significant(upper)} {currency}, within the {most:g} allowed."
    elif lower > most:
        verdict, words = Verdict.FAIL, f"{of} at least {significant(lower)} {currency}, more than the {most:g} allowed."
    else:
        verdict = Verdict.INCONCLUSIVE
        words = (
            f"{of} between {significant(lower)} and {significant(upper)} {currency}, and {most:g} is allowed: the "
            "timings cannot tell. More measure.throughput_rows, or a quieter machine, narrows it."
        )
    return Check(
        name="max_cost_per_million_texts",
        verdict=verdict,
        threshold=most,
        value=cost,
        interval=(lower, upper),
        words=words,
    )


def check_neighbours(neighbours: Neighbours, most: int) -> Check:
    """Whether no more predictions than allowed flip when other rows or more padding stand in their batch.

    Exact for the rows tried.
    """
    shifts = [shift for shift in (neighbours.alone, neighbours.mixed, neighbours.padded) if shift is not None]
    padded = f", {neighbours.padded.flips:,} with more padding" if neighbours.padded is not None else ""
    within = neighbours.flips <= most
    words = (
        f"{neighbours.flips:,} of {neighbours.rows:,} predictions flip with their neighbours in the batch "
        f"({neighbours.alone.flips:,} alone, {neighbours.mixed.flips:,} among random others{padded}), "
        f"{'within' if within else 'more than'} the {most:,} allowed; an output moves by up to "
        f"{significant(max(shift.largest for shift in shifts))}."
    )
    return _exact("max_batch_flips", within, most, neighbours.flips, words)


def _exact(name: str, within: bool, threshold: float, value: float, words: str) -> Check:
    verdict = Verdict.PASS if within else Verdict.FAIL
    return Check(name=name, verdict=verdict, threshold=threshold, value=value, words=words)


def _texts_per_second(throughput: Throughput) -> Interval:
    rate = throughput.candidate_texts_per_second
    return throughput.candidate_texts_per_second_ci or (rate, rate)


def _first_cell(measurements: Measurements, name: str) -> EncoderLatency:
    cells: Sequence[EncoderLatency] = measurements.latency
    if not cells:
        what = f"{name} judges the first measured cell, and the measurements hold none"
        raise ModelError(what, where=f"gate.{name}", fix="name a cell under measure.cells in the recipe")
    return cells[0]


def _ratio(name: str, what: str, cell: EncoderLatency, value: float, bounds: Interval, least: float) -> Check:
    """A ratio of times against the least demanded; within the machine's noise it is no evidence."""
    lower, upper = bounds
    shape = f"at batch {cell.batch_size}, length {cell.sequence_length}"
    noise = cell.noise_ratio_ci
    # What is demanded below 1 (no slower than …) leaves the noise that much more room.
    if noise and lower >= least and max(noise[1], 1 / noise[0]) >= value / min(least, 1):
        verdict = Verdict.INCONCLUSIVE
        words = (
            f"The {what} {shape} was measured as {value:.2f} times, on a machine so busy that the baseline "
            f"against itself gave {noise[0]:.2f} to {noise[1]:.2f}: that is no evidence. Measure again when nothing "
            "else runs."
        )
    elif lower >= least:
        verdict = Verdict.PASS
        words = f"The {what} {shape} is at least {lower:.2f} times, of {least:g} demanded."
    elif upper < least:
        verdict = Verdict.FAIL
        words = f"The {what} {shape} is at most {upper:.2f} times, less than the {least:g} demanded."
    else:
        verdict = Verdict.INCONCLUSIVE
        words = (
            f"The {what} {shape} lies between {lower:.2f} and {upper:.2f} times, and {least:g} is demanded: the "
            "timings cannot tell. A quieter machine, or more measure.seconds_per_cell, narrows it."
        )
    return Check(name=name, verdict=verdict, threshold=least, value=value, interval=bounds, words=words)
