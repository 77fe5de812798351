"""The search: the fastest candidate within the bounds, from the cheap looks to the dear ones.

All candidates are screened: made, compared on a few rows, timed shortly. Then the tune rows judge them from the fastest
down, until one passes, which is tried with its batches divided. Where a much faster one failed by its accuracy, the
products that move its outputs most go back to float32, and what passes then is divided, too. What passed is timed
again, longer and together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from modelmill.core.model import MicroBatching
from modelmill.core.progress import Progress
from modelmill.steps.calibrate_quantize.contract import Bound, ChooseSettings, Scheme, Variant
from modelmill.steps.calibrate_quantize.space import PART_TOKENS, Candidate
from modelmill.steps.calibrate_quantize.trial_asks import Answer, Ask, Subject, Work
from modelmill.steps.calibrate_quantize.trials import Timed, Trial, excess_points, refused_for
from modelmill.targets.base import Precision

SCREEN_SECONDS = 0.5
DIVIDE_SECONDS = 1.5
FINAL_SECONDS = 3.0
"""Of each cell."""
FINALISTS = 3
BROKEN = 1.0
"""Of the outputs' scale: what moves by as much is not judged."""
WORTH = 1.05
"""How much faster a failed candidate must be for its products to be sorted."""
SPARED = (1, 2, 4, 8)
"""Products that go back to float32, the ones that move the outputs most."""


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
        unquantized_bytes: Of the optimized graphs.
        progress: Told each trial.
    """

    bench: Bench
    settings: ChooseSettings
    threads: int
    unquantized_bytes: int
    progress: Progress
    trials: list[Trial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    spent: bool = False

    def run(self, space: Sequence[Candidate]) -> Found:
        """Search among ``space``, at least one candidate."""
        usual = [candidate for candidate in space if not candidate.rare] or [*space]
        for candidate in usual:
            self._screen(candidate.name, candidate.variant, f"{len(self.trials) + 1} of {len(usual)}")
        passed = self._judge_from_the_fastest()
        # Dividing gains most: it comes before what may spend the rest of the budget.
        if passed is not None:
            self._divide(passed)
        spared = self._spare_products(passed)
        if spared is not None:
            self._divide(spared)
        self._try_the_rare([candidate for candidate in space if candidate not in usual], spared or passed)
        found = self._decide()
        self._fill_the_table()
        return found

    def _try_the_rare(self, space: Sequence[Candidate], passed: Trial | None) -> None:
        """Screen what seldom is the fastest, and divide what is faster than the passing one was whole, and passes."""
        screened = [self._screen(item.name, item.variant, "of what is seldom the fastest") for item in space]
        names = {trial.name for trial in screened if trial is not None}
        least = passed.gain if passed is not None else 0.0
        for trial in [item for item in self._fastest() if item.name in names and item.gain > least]:
            judged = self._judge(trial)
            if refused_for(judged, self.settings.bound, self.unquantized_bytes) is None:
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
            self.progress.fact(
                f"{told}: {trial.gain:.2f} times as fast as unquantized, outputs move {trial.screened.deviation:.3f} "
                f"of their scale{best}"
            )
        return trial

    def _judge_from_the_fastest(self) -> Trial | None:
        for trial in self._fastest():
            judged = self._judge(trial)
            if refused_for(judged, self.settings.bound, self.unquantized_bytes) is None:
                return judged
        return None

    def _judge(self, trial: Trial) -> Trial:
        if trial.judged is not None:
            return trial
        answer = self.bench.ask(Ask(work=Work.JUDGE, subjects=[subject_of(trial)]))
        judged = trial.model_copy(update={"judged": answer.judged, "failure": answer.failure})
        self._put(trial, judged)
        if judged.judged is None:
            self.progress.fact(f"{trial.name}: failed on the tune rows: {answer.failure}")
            return judged
        refusal = refused_for(judged, self.settings.bound, self.unquantized_bytes)
        confidence = self.settings.bound.confidence
        self.progress.fact(
            f"{trial.name}: {judged.judged.drop_points:+.2f} points lost on {judged.judged.rows} tune rows, at most "
            f"{judged.judged.worst_points(confidence):.2f} at {confidence:.0%}: "
            + ("passes" if refusal is None else f"does not pass, {refusal}")
        )
        return judged

    def _divide(self, whole: Trial) -> None:
        """Try to divide a passing candidate's batches, and judge the fastest way that is faster than none."""
        tried = [self._divided(whole, tokens, self.threads) for tokens in PART_TOKENS]
        found = sorted((trial for trial in tried if trial is not None), key=lambda trial: -trial.gain)
        if found and found[0].micro_batching is not None and self.threads > 1:
            again = self._divided(whole, found[0].micro_batching.max_tokens, 1)
            found = sorted([*found, *([again] if again else [])], key=lambda trial: -trial.gain)
        for trial in found:
            if trial.gain <= whole.gain:
                return
            if refused_for(self._judge(trial), self.settings.bound, self.unquantized_bytes) is None:
                return

    def _divided(self, whole: Trial, tokens: int, workers: int) -> Trial | None:
        if not self._may_go_on() or whole.screened is None:
            return None
        division = MicroBatching(max_tokens=tokens, workers=workers)
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
            for trial in self._fastest()
            if trial.judged is not None
            and trial.variant.scheme is not Scheme.NONE
            and excess_points(trial.judged, bound) > 0
            and trial.gain >= least
        ]
        if not failed or not self._may_go_on():
            return None
        trial = failed[0]
        ranked = self.bench.ask(Ask(work=Work.RANK_PRODUCTS, subjects=[subject_of(trial)])).products
        worst = sorted(ranked, key=lambda name: (-ranked[name], name))
        self.progress.fact(f"{trial.name}: outputs move most by quantizing {', '.join(worst[:3])}")
        for count in SPARED:
            if count >= len(worst):
                return None
            variant = trial.variant.model_copy(update={"keep_float": sorted(worst[:count])})
            spared = self._screen(f"{trial.name}, {count} float32", variant, "with products spared")
            if spared is None or spared.gain < least:
                return None
            judged = self._judge(spared)
            if refused_for(judged, bound, self.unquantized_bytes) is None:
                return judged
        return None

    def _decide(self) -> Found:
        bound = self.settings.bound
        for plain in [trial for trial in self._fastest() if trial.variant.precision is Precision.FLOAT32][:1]:
            # What int8 must be faster than, where both are allowed.
            self._judge(plain)
        passing = [trial for trial in self._fastest() if refused_for(trial, bound, self.unquantized_bytes) is None]
        if not passing:
            chosen = self._nearest()
            words = "no candidate keeps to the bounds on the tune rows; this one comes nearest"
            return self._found(chosen, words)
        finalists = passing[:FINALISTS]
        unquantized = [trial for trial in passing if trial.variant.precision is Precision.FLOAT32][:1]
        finalists += [trial for trial in unquantized if trial not in finalists]
        if len(finalists) > 1:
            finalists = self._timed_again(finalists)
        best = max(finalists, key=lambda trial: trial.gain)
        unquantized = [trial for trial in finalists if trial.variant.precision is Precision.FLOAT32]
        if unquantized and best not in unquantized and best.gain < self.settings.search.min_gain * unquantized[0].gain:
            gain = best.gain / unquantized[0].gain
            words = f"the fastest quantized candidate is {gain:.2f} times as fast, and less than "
            return self._found(unquantized[0], f"{words}{self.settings.search.min_gain:g} is not worth its loss")
        equal = [trial for trial in finalists if trial.gain >= best.gain * (1 - _uncertainty(best))]
        # Among those that the clock cannot tell apart, the one that loses least.
        chosen = min(equal, key=lambda trial: (_drop(trial), -trial.gain))
        return self._found(chosen, "the fastest candidate that keeps to the bounds on the tune rows")

    def _fill_the_table(self) -> None:
        """Judge what the decision did not need, so that accuracy can be seen against speed, while seconds are left."""
        for trial in [item for item in self._fastest() if item.judged is None and item.micro_batching is None]:
            if self.bench.seconds >= self.settings.search.seconds:
                return
            self._judge(trial)

    def _timed_again(self, finalists: list[Trial]) -> list[Trial]:
        subjects = [subject_of(trial) for trial in finalists]
        answer = self.bench.ask(Ask(work=Work.TIME, subjects=subjects, seconds=FINAL_SECONDS))
        if answer.failure is not None:
            self.notes.append(f"the finalists were not timed again: {answer.failure}")
            return finalists
        return [
            self._put(trial, trial.model_copy(update={"final": timed}))
            for trial, timed in zip(finalists, answer.timed, strict=True)
        ]

    def _nearest(self) -> Trial:
        judged = [trial for trial in self.trials if trial.judged is not None]
        if judged:
            return min(judged, key=lambda trial: (_excess(trial, self.settings.bound), -trial.gain))
        return self._fastest()[0] if self._fastest() else self.trials[0]

    def _found(self, chosen: Trial, words: str) -> Found:
        reason = f"{words}: {chosen.name}, {chosen.gain:.2f} times as fast as unquantized"
        self.progress.fact(reason)
        return Found(self.trials, self.trials.index(chosen), reason, self.notes)

    def _fastest(self) -> list[Trial]:
        """What could be timed and is not broken, the fastest first."""
        alive = [item for item in self.trials if item.screened is not None and item.failure is None]
        sound = [item for item in alive if item.screened is not None and item.screened.deviation < BROKEN]
        return sorted(sound, key=lambda trial: -trial.gain)

    def _may_go_on(self) -> bool:
        search = self.settings.search
        over = len(self.trials) >= search.trials, self.bench.seconds >= search.seconds
        if any(over) and not self.spent:
            self.spent = True
            ended = f"{search.trials} trials" if over[0] else f"{search.seconds:g} seconds"
            self.notes.append(f"the search ended after {ended}, its budget")
            self.progress.fact(self.notes[-1])
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


def _uncertainty(trial: Trial) -> float:
    """The share of its gain that the interval leaves open."""
    return 1 - trial.timed.least_gain / trial.timed.gain if trial.timed else 0.0


def _drop(trial: Trial) -> float:
    return trial.judged.drop_points if trial.judged else 0.0


def _excess(trial: Trial, bound: Bound) -> float:
    return excess_points(trial.judged, bound) if trial.judged else float("inf")
