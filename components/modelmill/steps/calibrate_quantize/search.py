"""The search: the fastest candidate within the bounds, from the cheap looks to the dear ones.

Candidates are screened: made, compared on a few rows, timed shortly. Then the tune rows judge them from the fastest
down, until one passes, which is tried with its batches divided, and the unquantized model divided alike. What takes
long to calibrate is screened after that. Where a much faster one failed by its accuracy, the products that move its
outputs most go back to float32, and what passes then is divided, too. What passed is timed again, longer and together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from modelmill.core.errors import ModelError
from modelmill.core.evidence import Interval
from modelmill.core.model import MicroBatching
from modelmill.core.progress import Progress
from modelmill.steps.calibrate_quantize.contract import ChooseSettings, Scheme, Variant
from modelmill.steps.calibrate_quantize.space import PART_TOKENS, Candidate
from modelmill.steps.calibrate_quantize.trial_asks import Answer, Ask, Subject, Work
from modelmill.steps.calibrate_quantize.trials import (
    Timed,
    Trial,
    decidable,
    excess_points,
    judged_otherwise,
    missed,
    refused_for,
)
from modelmill.targets.base import Precision
from modelmill.tasks import registry

SCREEN_SECONDS = 0.5
DIVIDE_SECONDS = 1.5
FINAL_SECONDS = 3.0
"""Of each cell."""
FINALISTS = 3
FIRST_LOOKS = 2 / 3
"""Share of the budget's seconds after which no further candidate is screened before one is judged and divided."""
WORTH = 1.05
"""How much faster a failed candidate must be for its products to be sorted."""
SPARED = (1, 2, 4, 8)
"""Products that go back to float32, the ones that move the outputs most."""
SEVEN_BITS = "weights have 7 bits, because this processor has no VNNI"


class Bench(Protocol):
    """Where candidates are tried."""

    @property
    def seconds(self) -> float:
        """What all asks took."""
        ...

    def ask(self, ask: Ask) -> Answer:
        """Try what is asked."""
        ...


@dataclass
class Found:
    """How a search ended.

    Attributes:
        trials: All of them, in the order of their first look.
        chosen: Index of the chosen one.
        reason: Why it, for people.
        notes: What a reader must know, such as a budget that ended the search.
    """

    trials: list[Trial]
    chosen: int
    reason: str
    notes: list[str]


@dataclass
class Search:
    """One search.

    Attributes:
        bench: Tries what it is asked.
        settings: Budget and bounds.
        threads: That divided batches may use.
        checkpoint_bytes: What sizes are held against.
        progress: Told each trial.
    """

    bench: Bench
    settings: ChooseSettings
    threads: int
    checkpoint_bytes: int
    progress: Progress
    trials: list[Trial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    spent: bool = False

    def run(self, space: Sequence[Candidate]) -> Found:
        """Search among ``space``, at least one candidate.

        Raises:
            ModelError: No candidate could be tried, or all are broken.
        """
        usual = [candidate for candidate in space if not candidate.rare] or [*space]
        left = list(enumerate(usual, 1))
        while left and (not self.trials or self.bench.seconds <= FIRST_LOOKS * self.settings.search.seconds):
            self._look_first(*left.pop(0), len(usual))
        passed = self._judge_from_the_fastest()
        # Dividing gains most: it comes before what may spend the rest of the budget.
        if passed is not None:
            self._divide(passed)
        for number, candidate in left:
            self._look_first(number, candidate, len(usual))
        before, passed = passed, self._judge_from_the_fastest()
        if passed is not None and (before is None or passed.gain >= WORTH * before.gain):
            self._divide(passed)
        self._judge_the_close()
        spared = self._spare_products(passed)
        if spared is not None:
            self._divide(spared)
        self._try_the_rare([candidate for candidate in space if candidate not in usual], spared or passed)
        found = self._decide()
        self._fill_the_table()
        return found

    def _look_first(self, number: int, candidate: Candidate, count: int) -> None:
        self._screen(candidate.name, candidate.variant, f"{number} of {count}")

    def _try_the_rare(self, space: Sequence[Candidate], passed: Trial | None) -> None:
        """Screen what seldom is the fastest, and divide what is faster than the passing one was whole, and passes."""
        screened = [self._screen(item.name, item.variant, "of what is seldom the fastest") for item in space]
        names = {trial.name for trial in screened if trial is not None}
        least = passed.gain if passed is not None else 0.0
        for trial in [item for item in self._fastest() if item.name in names and item.gain > least]:
            judged = self._judge(trial)
            if self._passes(judged):
                self._divide(judged)
                return

    def _screen(self, name: str, variant: Variant, where: str) -> Trial | None:
        if not self._may_go_on():
            return None
        trial = Trial(name=name, variant=variant)
        answer = self.bench.ask(Ask(work=Work.SCREEN, subjects=[subject_of(trial)], seconds=SCREEN_SECONDS))
        return self._look_at(trial.model_copy(update={"failure": answer.failure, "screened": answer.screened}), where)

    def _look_at(self, trial: Trial, where: str) -> Trial:
        self.trials.append(trial)
        told = f"trial {where}: {trial.name}"
        if trial.screened is None:
            self.progress.fact(f"{told} failed: {trial.failure}")
        else:
            sound = self._fastest()
            best = f"; fastest so far: {sound[0].name}, {sound[0].gain:.2f}" if sound else ""
            moves = f"outputs move {trial.screened.deviation:.3f} of their scale"
            self.progress.fact(f"{told}: {trial.speed}, {moves}{best}")
        return trial

    def _judge_from_the_fastest(self) -> Trial | None:
        return self._first_that_passes(self._whole())

    def _first_that_passes(self, trials: Sequence[Trial]) -> Trial | None:
        judged = (self._judge(trial) for trial in trials)
        return next((trial for trial in judged if self._passes(trial)), None)

    def _passes(self, trial: Trial) -> bool:
        return refused_for(trial, self.settings.bound, self.checkpoint_bytes) is None

    def _judge(self, trial: Trial) -> Trial:
        if trial.judged is not None:
            return trial
        answer = self.bench.ask(Ask(work=Work.JUDGE, subjects=[subject_of(trial)]))
        judged = trial.model_copy(update={"judged": answer.judged, "failure": answer.failure})
        self._put(trial, judged)
        if judged.judged is None:
            self.progress.fact(f"{trial.name}: failed on the tune rows: {answer.failure}")
            return judged
        refusal = refused_for(judged, self.settings.bound, self.checkpoint_bytes)
        bound, rows = self.settings.bound, judged.judged.rows
        compared = "" if decidable(rows, bound) else " by what it loses on rows too few for an interval"
        self.progress.fact(
            f"{trial.name}: {judged.judged.drop_points:+.2f} points lost on {rows} tune rows, at most "
            f"{judged.judged.worst_points(bound.confidence):.2f} at {bound.confidence:.0%}: "
            + (f"passes{compared}" if refusal is None else f"does not pass, {refusal}")
        )
        return judged

    def _divide(self, whole: Trial) -> None:
        """Try to divide a passing candidate's batches, and judge the fastest way that is faster than none.

        Where one passes, what a first look could not tell from the whole one is divided alike.
        """
        divisions = [MicroBatching(max_tokens=tokens, workers=self.threads) for tokens in PART_TOKENS]
        tried = [self._divided(whole, division) for division in divisions if self._may_go_on()]
        found = sorted((trial for trial in tried if trial is not None), key=lambda trial: -trial.gain)
        if found and found[0].micro_batching is not None and self.threads > 1 and self._may_go_on():
            again = self._divided(whole, found[0].micro_batching.model_copy(update={"workers": 1}))
            found = sorted([*found, *([again] if again else [])], key=lambda trial: -trial.gain)
        for trial in found:
            if trial.gain <= whole.gain:
                return
            if self._passes(self._judge(trial)):
                self._divide_unquantized_like(trial)
                self._divide_the_close_like(trial, whole)
                return

    def _divide_unquantized_like(self, divided: Trial) -> None:
        """Dividing gains without quantizing, too: whatever is left of the budget, like is held against like."""
        unquantized = [trial for trial in self._whole() if trial.variant.scheme is Scheme.NONE]
        for precision in dict.fromkeys(trial.variant.precision for trial in unquantized):
            plain = self._first_that_passes([trial for trial in unquantized if trial.variant.precision is precision])
            alike = self._divided_like(divided, plain)
            if plain is not None and alike is not None and alike.gain > plain.gain:
                self._judge(alike)

    def _divide_the_close_like(self, divided: Trial, whole: Trial) -> None:
        hopeful = [trial for trial in self._whole() if trial.judged is None or self._passes(trial)]
        close = [trial for trial in hopeful if trial.may_be_as_fast_as(whole) and trial.variant != whole.variant]
        for rival in close[: FINALISTS - 1]:
            alike = self._divided_like(divided, rival) if self._may_go_on() else None
            if alike is not None and alike.may_be_as_fast_as(divided):
                self._judge(alike)

    def _divided_like(self, divided: Trial, whole: Trial | None) -> Trial | None:
        """A whole candidate with its batches divided as another's; None: there is none, or it was tried."""
        tried = [(trial.variant, trial.micro_batching) for trial in self.trials]
        if whole is None or divided.micro_batching is None or (whole.variant, divided.micro_batching) in tried:
            return None
        return self._divided(whole, divided.micro_batching)

    def _divided(self, whole: Trial, division: MicroBatching) -> Trial | None:
        if whole.screened is None:
            return None
        trial = Trial(name=f"{whole.name}, {in_words(division)}", variant=whole.variant, micro_batching=division)
        # Beside the whole: what dividing gains is less than what two looks at one model differ by.
        both = [subject_of(whole), subject_of(trial)]
        answer = self.bench.ask(Ask(work=Work.TIME, subjects=both, seconds=DIVIDE_SECONDS, single_rows=False))
        screened = None
        if answer.failure is None:
            timed = _relative_to(whole.screened.timed, *answer.timed)
            screened = whole.screened.model_copy(update={"timed": timed})
        looked_at = trial.model_copy(update={"failure": answer.failure, "screened": screened})
        return self._look_at(looked_at, "with its batches divided")

    def _spare_products(self, passed: Trial | None) -> Trial | None:
        """Put products of the fastest inaccurate candidate back to float32, until it passes or gains no more."""
        bound, least = self.settings.bound, WORTH * (passed.gain if passed else 0.0)
        failed = [
            trial
            for trial in self._whole()
            if trial.judged is not None
            and trial.variant.scheme is not Scheme.NONE
            and excess_points(trial.judged, bound) > 0
            and trial.gain >= least
        ]
        if not failed or not self._may_go_on():
            return None
        trial = failed[0]
        worst = self._products_by_harm(trial)
        for count in SPARED:
            if count >= len(worst):
                return None
            variant = trial.variant.model_copy(update={"keep_float": sorted(worst[:count])})
            spared = self._screen(f"{trial.name}, {count} float32", variant, "with products spared")
            if spared is None or spared.gain < least:
                return None
            judged = self._judge(spared)
            if refused_for(judged, bound, self.checkpoint_bytes) is None:
                return judged
        return None

    def _products_by_harm(self, trial: Trial) -> list[str]:
        """A candidate's products, those first that move the outputs most where they alone are quantized."""
        listed = self.bench.ask(Ask(work=Work.LIST_PRODUCTS, subjects=[subject_of(trial)]))
        names = listed.products
        moved: dict[str, float] = {}
        failures = [listed.failure] if listed.failure is not None else []
        # The other half is for what comes of it. Out of order, so that those reached lie all over the model.
        until = (self.bench.seconds + self.settings.search.seconds) / 2
        with self.progress.bar(f"products of {trial.name}", len(names), "products") as bar:
            for name in Random(self.settings.search.seed).sample(names, len(names)):
                if self.bench.seconds >= until:
                    break
                alone = trial.variant.model_copy(update={"keep_float": [other for other in names if other != name]})
                answer = self.bench.ask(Ask(work=Work.COMPARE, subjects=[Subject(variant=alone)]))
                # What fails alone is worse than what moves the outputs.
                moved[name] = math.inf if answer.deviation is None else answer.deviation
                failures += [answer.failure] if answer.failure is not None else []
                bar.advance()
        if failures and len(failures) >= len(moved):
            self._note(f"the products of {trial.name} could not be ranked: {failures[0]}")
            return []
        worst = sorted(moved, key=lambda name: (-moved[name], name))
        if len(moved) < len(names):
            self._note(
                f"{len(moved)} of {len(names)} products of {trial.name} were ranked, in half of the seconds left"
            )
        if failures:
            self._note(f"products of {trial.name} that fail alone in int8: {len(failures)} ({failures[0]})")
        if worst:
            self.progress.fact(f"{trial.name}: outputs move most by quantizing {', '.join(worst[:3])}")
        return worst

    def _note(self, words: str) -> None:
        self.notes.append(words)
        self.progress.fact(words)

    def _decide(self) -> Found:
        if not self._fastest():
            raise self._nothing_runs()
        # What int8 must be faster than, where both are allowed.
        self._first_that_passes([trial for trial in self._fastest() if not _is_quantized(trial)])
        self._judge_the_close()
        self._tell_how_it_was_judged()
        passing = self._passing()
        if not passing:
            return self._found(
                self._nearest(), "no candidate keeps to the bounds on the tune rows; this one comes nearest"
            )
        finalists = passing[:FINALISTS]
        # The margin is between the fastest of either kind.
        for quantized in (True, False):
            fastest = [trial for trial in passing if _is_quantized(trial) is quantized][:1]
            finalists += [trial for trial in fastest if trial not in finalists]
        finalists, faster = self._timed_again(finalists)
        best = max(finalists, key=lambda trial: trial.gain)
        plain = max((trial for trial in finalists if not _is_quantized(trial)), key=lambda one: one.gain, default=None)
        least = self.settings.search.min_gain
        if plain is None:
            self._tell_what_was_not_compared(best)
        if plain is not None and _is_quantized(best) and best.gain < least * plain.gain:
            words = f"the fastest quantized candidate is {best.gain / plain.gain:.2f} times as fast, and less than "
            return self._found(plain, f"{words}{least:g} is not worth its loss")
        # Among those that the clock cannot tell apart, the one that loses least; the margin has decided on quantizing.
        rivals = [
            trial
            for trial, (low, _) in zip(finalists, faster[finalists.index(best)] if faster else [], strict=False)
            if low <= 1 and _is_quantized(trial) is _is_quantized(best)
        ]
        chosen = min([best, *rivals], key=lambda trial: (_drop(trial), -trial.gain))
        if chosen is not best:
            return self._found(chosen, f"as fast as {best.name} by the clock, and loses less on the tune rows")
        kind = "" if _is_quantized(best) else ", an unquantized one"
        return self._found(best, f"the fastest candidate that keeps to the bounds on the tune rows{kind}")

    def _nothing_runs(self) -> ModelError:
        whys = [
            f"{trial.name}: {trial.failure or 'its outputs move by their whole scale, so that it is broken'}"
            for trial in self.trials
        ]
        fix = "see whether the runtime runs this model at all (the messages are its own), or take another runtime"
        if self.settings.search.max_calibration_rss_bytes is not None and all(
            trial.variant.scheme is Scheme.STATIC for trial in self.trials
        ):
            fix = "allow more by search.max_calibration_rss_bytes, or float32 in the target's precision"
        elif Precision.FLOAT32 not in self.settings.precisions:
            fix = "allow float32 in the target's precision, or take another runtime"
        return ModelError(f"no candidate can be run: {'; '.join(whys)}", fix=fix)

    def _tell_how_it_was_judged(self) -> None:
        bound = self.settings.bound
        rows = next((trial.judged.rows for trial in self.trials if trial.judged is not None), None)
        if rows is not None and not decidable(rows, bound):
            self.notes.append(
                f"{rows} tune rows cannot show that at most {bound.max_drop_points:g} points are lost at "
                f"{bound.confidence:.0%}: what is lost on them was compared, without an interval"
            )
        otherwise = judged_otherwise(bound, registry.get(self.settings.task).metric.name)
        self.notes += [otherwise] if otherwise else []

    def _tell_what_was_not_compared(self, best: Trial) -> None:
        compares = Precision.FLOAT32 in self.settings.precisions and self.settings.scheme in {None, Scheme.NONE}
        if compares and all(_is_quantized(trial) for trial in self.trials):
            self.notes.append(f"float32 was not tried before the budget ended: {best.name} was not held against it")

    def _passing(self) -> list[Trial]:
        return [trial for trial in self._fastest() if self._passes(trial)]

    def _judge_the_close(self) -> None:
        """Judge what a first look cannot tell from the fastest that passes, while seconds are left for it."""
        while self.bench.seconds < self.settings.search.seconds:
            fastest = self._passing()[:1]
            close = [trial for trial in self._fastest() if any(map(trial.may_be_as_fast_as, fastest))]
            # What dividing did not speed up is no model of its own.
            unjudged = [trial for trial in self._whole() if trial in close and trial.judged is None]
            if not unjudged or sum(map(self._passes, close)) >= FINALISTS:
                return
            self._judge(unjudged[0])

    def _fill_the_table(self) -> None:
        """Judge what the decision did not need, so that accuracy can be seen against speed, while seconds are left."""
        for trial in [item for item in self._whole() if item.judged is None]:
            if self.bench.seconds >= self.settings.search.seconds:
                return
            self._judge(trial)

    def _timed_again(self, finalists: list[Trial]) -> tuple[list[Trial], list[list[Interval]]]:
        """The finalists, timed together, and how many times as fast each is as each other."""
        subjects = [subject_of(trial) for trial in finalists]
        answer = self.bench.ask(Ask(work=Work.TIME, subjects=subjects, seconds=FINAL_SECONDS))
        if answer.failure is not None:
            self.notes.append(f"the finalists were not timed again: {answer.failure}")
            return finalists, []
        timed = [
            self._put(trial, trial.model_copy(update={"final": timed}))
            for trial, timed in zip(finalists, answer.timed, strict=True)
        ]
        return timed, answer.faster

    def _nearest(self) -> Trial:
        def distance(trial: Trial) -> tuple[int, float, float]:
            misses = missed(trial, self.settings.bound, self.checkpoint_bytes)
            return len(misses), sum(misses.values()), -trial.gain

        sound = self._fastest()
        return min([trial for trial in sound if trial.judged is not None] or sound, key=distance)

    def _found(self, chosen: Trial, words: str) -> Found:
        reason = f"{words}: {chosen.name}, {chosen.speed}"
        if chosen.variant.reduce_range:
            reason += f"; {SEVEN_BITS}"
            self.notes.append(f"{chosen.name}: {SEVEN_BITS}")
        if _is_quantized(chosen) and chosen.gain < 1 and Precision.FLOAT32 not in self.settings.precisions:
            self.notes.append(
                f"{chosen.name} is slower than the unquantized model ({chosen.gain:.2f} times as fast), which the "
                "recipe does not allow"
            )
        self.progress.fact(reason)
        return Found(self.trials, self.trials.index(chosen), reason, self.notes)

    def _fastest(self) -> list[Trial]:
        """What could be timed and is not broken, the fastest first."""
        alive = [item for item in self.trials if item.screened is not None and item.failure is None]
        return sorted((item for item in alive if not item.is_broken), key=lambda trial: -trial.gain)

    def _whole(self) -> list[Trial]:
        """Of these, the ones whose batches are not divided."""
        return [trial for trial in self._fastest() if trial.micro_batching is None]

    def _may_go_on(self) -> bool:
        search = self.settings.search
        over = len(self.trials) >= search.trials, self.bench.seconds >= search.seconds
        if any(over) and not self.spent:
            self.spent = True
            ended = f"{search.trials} trials" if over[0] else f"{search.seconds:g} seconds"
            self._note(f"the search ended after {ended}, its budget")
        # One candidate is always tried.
        return not any(over) or not self.trials

    def _put(self, before: Trial, after: Trial) -> Trial:
        self.trials[self.trials.index(before)] = after
        return after


def subject_of(trial: Trial) -> Subject:
    """What is asked about."""
    return Subject(variant=trial.variant, micro_batching=trial.micro_batching)


def in_words(division: MicroBatching) -> str:
    """How a batch is divided."""
    parts = "row by row" if division.max_tokens == 0 else f"in parts of {division.max_tokens} tokens"
    return f"{parts}, {division.workers} at a time" if division.workers > 1 else parts


def _relative_to(first: Timed, whole: Timed, divided: Timed) -> Timed:
    """A divided model's gains on the scale of the whole one's first look, which holds the cells of single rows, too."""
    beside = {before.name: (before, after) for before, after in zip(whole.cells, divided.cells, strict=True)}
    cells = []
    for cell in first.cells:
        if cell.name not in beside:
            # A single row is never divided: what was timed of it stays.
            cells.append(cell)
            continue
        before, after = beside[cell.name]
        scale = cell.gain / before.gain
        low, high = after.gain_ci
        cells.append(after.model_copy(update={"gain": after.gain * scale, "gain_ci": (low * scale, high * scale)}))
    return Timed(cells=cells)


def _is_quantized(trial: Trial) -> bool:
    """Whether it is not in float32: what must be faster by the margin."""
    return trial.variant.precision is not Precision.FLOAT32


def _drop(trial: Trial) -> float:
    return trial.judged.drop_points if trial.judged else 0.0
