"""What the search decides, on answers that are written down; what it asks of real models is in test_trials.py."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lane_steps import TASK, choose_settings
from modelmill.core.evidence import Cell
from modelmill.core.progress import SilentProgress
from modelmill.steps.calibrate_quantize import workbench
from modelmill.steps.calibrate_quantize.contract import Bound, Scheme, Variant
from modelmill.steps.calibrate_quantize.contract import Search as Budget
from modelmill.steps.calibrate_quantize.run import allowed
from modelmill.steps.calibrate_quantize.search import Found, Search
from modelmill.steps.calibrate_quantize.space import candidates
from modelmill.steps.calibrate_quantize.trial_asks import Answer, Ask, Job, Subject, Work
from modelmill.steps.calibrate_quantize.trials import Judged, Screened, Timed, TimedCell
from modelmill.steps.calibrate_quantize.workbench import Workbench
from modelmill.targets.base import Precision, Runtime

ALL = (Precision.FLOAT32, Precision.INT8)
SPACE = candidates(
    Runtime.ONNXRUNTIME, ALL, scheme=None, embeddings=True, calibration_rows=64, reduce_range=False, has_bf16=False
)
NAMES = {candidate.variant.model_dump_json(): candidate.name for candidate in SPACE}
PRODUCTS = [f"model/{number}" for number in range(10)]
Speed = Callable[[Subject], float]


def timed(gain: float) -> Timed:
    cell = TimedCell(name="batch 1, length 16", ms=10 / gain, gain=gain, gain_ci=(gain * 0.98, gain * 1.02))
    return Timed(cells=[cell])


@dataclass
class Scripted:
    """Answers by name; what is not told is slow and right."""

    gains: Mapping[str, float]
    lost: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    divided: float = 1.0
    flattered: float = 1.0
    mended_by: int = 10
    rows: int = 1000
    flips: Mapping[str, int] = field(default_factory=dict)
    asked: list[Ask] = field(default_factory=list)
    each: float = 1.0
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)
    unranked: Mapping[str, str] = field(default_factory=dict)

    def name_of(self, subject: Subject) -> str:
        return self.names[subject.variant.model_copy(update={"keep_float": []}).model_dump_json()]

    @property
    def seconds(self) -> float:
        return self.each * len(self.asked)

    def gain(self, subject: Subject) -> float:
        spared = 0.9 ** len(subject.variant.keep_float)
        return self.gains.get(self.name_of(subject), 1.0) * spared * (self.divided if subject.micro_batching else 1.0)

    def ask(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        first = ask.subjects[0]
        name = self.name_of(first)
        if name in self.failures:
            return Answer(failure=self.failures[name])
        if ask.work is Work.SCREEN:
            size = 100 if first.variant.scheme is Scheme.NONE else 26
            seen = self.gain(first) * (1.0 if first.micro_batching else self.flattered)
            return Answer(screened=Screened(size_bytes=size, deviation=0.01, timed=timed(seen)))
        if ask.work is Work.TIME:
            return Answer(timed=[timed(self.gain(subject)) for subject in ask.subjects])
        if ask.work is Work.LIST_PRODUCTS:
            return Answer(products=PRODUCTS)
        if ask.work is Work.COMPARE:
            (alone,) = set(PRODUCTS) - set(first.variant.keep_float)
            if alone in self.unranked:
                return Answer(failure=self.unranked[alone])
            return Answer(deviation=0.1 * PRODUCTS.index(alone))
        lost = self.lost.get(name, 0) // self.mended_by ** len(first.variant.keep_float)
        flips = self.flips.get(name, 0)
        return Answer(judged=Judged(rows=self.rows, lost=lost, gained=0, neighbours=64, flips=flips, moved=0.0))

    def works(self, work: Work) -> list[str]:
        return [self.name_of(ask.subjects[0]) for ask in self.asked if ask.work is work]


def search(bench: Scripted, bound: Bound | None = None, **budget: float) -> Found:
    settings = choose_settings(bound=bound or Bound(), search=Budget.model_validate({"trials": 40, **budget}))
    return Search(bench, settings, 2, 100, SilentProgress()).run(SPACE)


def chosen(found: Found) -> str:
    return found.trials[found.chosen].name


def test_the_fastest_that_passes_is_chosen_and_slower_ones_are_judged_after_that() -> None:
    bench = Scripted({"dynamic int8": 2.0, "static int8": 3.0, "static int8, entropy": 2.5})
    found = search(bench)
    assert chosen(found) == "static int8"
    assert bench.works(Work.JUDGE)[:2] == ["static int8", "float32"]
    first_divided = next(index for index, ask in enumerate(bench.asked) if ask.subjects[-1].micro_batching)
    assert len([ask for ask in bench.asked[:first_divided] if ask.work is Work.JUDGE]) == 1


def test_one_that_loses_too_much_goes_back_to_float32_where_it_hurts() -> None:
    bench = Scripted({"static int8": 3.0, "dynamic int8": 2.0}, lost={"static int8": 20})
    found = search(bench)
    assert chosen(found) == "static int8, 1 float32"
    assert found.trials[found.chosen].variant.keep_float == ["model/9"]
    assert bench.works(Work.LIST_PRODUCTS) == ["static int8"]
    assert bench.works(Work.COMPARE) == ["static int8"] * len(PRODUCTS)


def test_what_passes_is_divided_before_products_are_sorted_and_what_was_mended_after_that() -> None:
    bench = Scripted({"static int8": 3.0, "dynamic int8": 2.0}, lost={"static int8": 20}, divided=1.2)
    found = search(bench)
    divided = [trial.name for trial in found.trials if trial.micro_batching is not None]
    assert divided[0].startswith("dynamic int8, row by row")
    assert divided[-1].startswith("static int8, 1 float32")
    ranked = next(index for index, ask in enumerate(bench.asked) if ask.work is Work.LIST_PRODUCTS)
    assert next(index for index, ask in enumerate(bench.asked) if ask.subjects[-1].micro_batching) < ranked
    assert found.trials[found.chosen].name in divided


def test_one_that_is_hardly_faster_than_what_passes_is_not_mended() -> None:
    bench = Scripted({"static int8": 2.05, "dynamic int8": 2.0}, lost={"static int8": 60})
    assert chosen(search(bench)) == "dynamic int8"
    assert not bench.works(Work.LIST_PRODUCTS)


def test_mending_ends_where_it_gains_no_more() -> None:
    bench = Scripted({"static int8": 2.2, "dynamic int8": 2.0}, lost={"static int8": 60_000}, rows=100_000)
    found = search(bench)
    assert chosen(found) == "dynamic int8"
    assert [trial.name for trial in found.trials if "float32" in trial.name and "static" in trial.name] == [
        "static int8, 1 float32"
    ]


def test_where_nothing_passes_the_nearest_is_given_and_said_to_be() -> None:
    only = [candidate for candidate in SPACE if candidate.variant.scheme is Scheme.DYNAMIC]
    bench = Scripted({}, lost={"dynamic int8": 90, "dynamic int8, tanh GELU": 80}, mended_by=1)
    settings = choose_settings(search=Budget(trials=40))
    found = Search(bench, settings, 2, 100, SilentProgress()).run(only)
    assert chosen(found) == "dynamic int8, tanh GELU"
    assert "no candidate keeps to the bounds" in found.reason


def test_int8_that_is_not_faster_by_the_margin_gives_way_to_float32() -> None:
    found = search(Scripted({"dynamic int8": 1.03, "static int8": 0.7}))
    assert found.trials[found.chosen].variant.precision is Precision.FLOAT32
    assert "not worth its loss" in found.reason
    assert chosen(search(Scripted({"dynamic int8": 1.03}), min_gain=1.02)) == "dynamic int8"


@pytest.mark.parametrize(("gain", "precision"), [(1.03, Precision.FLOAT32), (1.2, Precision.INT8)])
def test_without_vnni_int8_has_seven_bits_and_is_shipped_only_where_it_is_faster_by_the_margin(
    gain: float, precision: Precision
) -> None:
    space = allowed(choose_settings(), ["avx2", "fma"])
    seven = {item.name for item in space if item.variant.reduce_range}
    assert seven == {item.name for item in space if item.variant.precision is Precision.INT8}
    names = {item.variant.model_dump_json(): item.name for item in space}
    bench = Scripted({name: gain for name in seven}, names=names)
    found = Search(bench, choose_settings(search=Budget(trials=40)), 2, 100, SilentProgress()).run(space)
    assert found.trials[found.chosen].variant.precision is precision


def test_a_divided_batch_is_chosen_where_it_is_faster() -> None:
    found = search(Scripted({"dynamic int8": 2.0}, divided=1.4))
    assert found.trials[found.chosen].micro_batching is not None
    assert "row by row, 2 at a time" in chosen(found)
    assert search(Scripted({"dynamic int8": 2.0}, divided=0.9)).trials[-1].micro_batching is not None
    assert chosen(search(Scripted({"dynamic int8": 2.0}, divided=0.9))) == "dynamic int8"


def test_dividing_is_held_against_the_whole_beside_it_and_not_against_a_lucky_first_look() -> None:
    found = search(Scripted({"dynamic int8": 2.0}, divided=1.2, flattered=1.5))
    assert found.trials[found.chosen].micro_batching is not None


@pytest.mark.parametrize(
    ("allowed", "has_bf16", "found"),
    [
        ([*ALL, Precision.BF16], True, 3),
        ([*ALL, Precision.BF16], False, 0),
        ([Precision.INT8], True, 0),
        ([Precision.FLOAT32, Precision.BF16], True, 1),
    ],
)
def test_bf16_is_tried_where_the_processor_has_it_and_the_recipe_allows_it(
    allowed: list[Precision], has_bf16: bool, found: int
) -> None:
    options = {"scheme": None, "embeddings": True, "calibration_rows": 64, "reduce_range": False}
    space = candidates(Runtime.OPENVINO, allowed, has_bf16=has_bf16, **options)
    rests = [Variant.model_validate_json(candidate.variant.model_dump_json()).rest for candidate in space]
    assert rests.count(Precision.BF16) == found


def test_a_candidate_that_crashes_is_named_and_the_search_goes_on() -> None:
    found = search(Scripted({"dynamic int8": 2.0}, failures={"static int8": "it died of SIGSEGV"}))
    assert chosen(found) == "dynamic int8"
    assert [trial.failure for trial in found.trials if trial.name == "static int8"] == ["it died of SIGSEGV"]


@pytest.mark.parametrize("budget", [{"trials": 3}, {"seconds": 3.0}])
def test_a_spent_budget_ends_the_search_with_the_best_so_far_and_a_word(budget: dict[str, float]) -> None:
    found = search(Scripted({"dynamic int8": 2.0, "float32, tanh GELU": 9.0}), **budget)
    assert chosen(found) == "dynamic int8"
    assert len(found.trials) == 3
    assert "its budget" in found.notes[0]


def test_what_flips_or_is_too_large_does_not_pass_where_the_recipe_demands_it() -> None:
    gains = {"dynamic int8": 3.0, "static int8": 2.0}
    flips = {name: 2 for name in NAMES.values() if name.startswith("dynamic")}
    assert chosen(search(Scripted(gains, flips=flips))) == "dynamic int8"
    assert chosen(search(Scripted(gains, flips=flips), Bound(max_batch_flips=0))) == "static int8"
    large = search(Scripted({"float32, tanh GELU": 5.0, **gains}), Bound(max_size_ratio=0.5))
    assert chosen(large) == "dynamic int8"


def test_few_tune_rows_are_compared_without_an_interval() -> None:
    bench = Scripted({"dynamic int8": 2.0, "static int8": 3.0}, lost={"static int8": 4}, rows=60)
    assert chosen(search(bench)).startswith("static int8, 1 float32")
    assert chosen(search(Scripted({"dynamic int8": 2.0}, rows=60))) == "dynamic int8"


def test_every_candidate_has_a_name_and_a_variant_of_its_own() -> None:
    assert len({candidate.name for candidate in SPACE}) == len(SPACE)
    assert len({candidate.variant.model_dump_json() for candidate in SPACE}) == len(SPACE)
    assert isinstance(SPACE[0].variant, Variant)


def test_ranking_takes_half_of_the_seconds_left_so_that_what_it_finds_is_tried() -> None:
    lossy = {"gains": {"static int8": 3.0, "dynamic int8": 2.0}, "lost": {"static int8": 20}}
    unbounded = Scripted(**lossy)
    search(unbounded)
    before = next(index for index, ask in enumerate(unbounded.asked) if ask.work is Work.LIST_PRODUCTS)
    bench = Scripted(**lossy)
    found = search(bench, seconds=before + 8.0)
    assert len(bench.works(Work.COMPARE)) == 4
    assert any("4 of 10 products of static int8 were ranked" in note for note in found.notes)
    assert "static int8, 1 float32" in [trial.name for trial in found.trials]


@pytest.mark.parametrize("fails", [PRODUCTS, []])
def test_a_ranking_that_fails_is_noted(fails: list[str]) -> None:
    class Deaf(Scripted):
        def ask(self, ask: Ask) -> Answer:
            answer = super().ask(ask)
            deaf = ask.work is Work.LIST_PRODUCTS and not fails
            return Answer(failure="it died of SIGSEGV") if deaf else answer

    unranked = dict.fromkeys(fails, "it died of SIGSEGV")
    bench = Deaf({"static int8": 3.0, "dynamic int8": 2.0}, lost={"static int8": 20}, unranked=unranked)
    found = search(bench)
    assert chosen(found) == "dynamic int8"
    assert found.notes == ["the products of static int8 could not be ranked: it died of SIGSEGV"]


def test_a_product_that_fails_where_it_alone_is_int8_goes_back_first() -> None:
    bench = Scripted({"static int8": 3.0}, lost={"static int8": 20}, unranked={"model/3": "its outputs are not finite"})
    found = search(bench)
    assert found.trials[found.chosen].variant.keep_float == ["model/3"]
    assert found.notes == ["products of static int8 that fail alone in int8: 1 (its outputs are not finite)"]


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Journalled(Workbench):
    """A journal before answers that are written down, each of which takes a second."""

    def __init__(self, bench: Scripted, journal: Path, progress: SilentProgress, budget: float, clock: Clock) -> None:
        journal.mkdir(exist_ok=True)
        nowhere = Path("nowhere")
        job = Job(model=nowhere, calibrate=nowhere, tune=nowhere, task=TASK, runtime=Runtime.ONNXRUNTIME, threads=2,
                  cells=[Cell(batch_size=1, sequence_length=16)], seed=0)  # fmt: skip
        super().__init__(job, journal, progress, budget)
        self._bench, self._clock = bench, clock

    def _tried(self, ask: Ask, *, again: bool = True) -> Answer:
        self._clock.now += 1
        return self._bench.ask(ask)


@pytest.mark.parametrize("seconds", [3.0, 20.0])
def test_a_killed_searchs_successor_ends_as_it_would_have(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(workbench, "time", clock)

    def searched(journal: Path) -> tuple[Found, float, int]:
        bench = Scripted({"static int8": 3.0, "dynamic int8": 2.0}, lost={"static int8": 20}, divided=1.2)
        settings = choose_settings(search=Budget(trials=40, seconds=seconds))
        with Journalled(bench, journal, SilentProgress(), seconds, clock) as journalled:
            found = Search(journalled, settings, 2, 100, SilentProgress()).run(SPACE)
        return found, journalled.seconds, len(bench.asked)

    unbroken = searched(tmp_path / "unbroken")
    files = sorted((tmp_path / "unbroken").iterdir())
    assert unbroken[1] == unbroken[2] == len(files) > seconds
    for count in range(len(files) + 1):
        journal = tmp_path / f"killed-after-{count}"
        journal.mkdir()
        for file in files[:count]:
            shutil.copy(file, journal)
        assert searched(journal) == (unbroken[0], len(files), len(files) - count)


def test_a_journal_with_a_gap_keeps_all_it_has_and_another_versions_entries_count_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(workbench, "time", clock)
    facts: list[str] = []
    progress = SilentProgress()
    monkeypatch.setattr(progress, "fact", facts.append)
    bench = Scripted({})
    asks = [Ask(work=Work.SCREEN, subjects=[Subject(variant=candidate.variant)]) for candidate in SPACE[:5]]
    with Journalled(bench, tmp_path / "journal", progress, 60.0, clock) as first:
        for ask in asks[:4]:
            first.ask(ask)
    files = sorted((tmp_path / "journal").iterdir())
    files[1].unlink()
    files[2].write_text(files[2].read_text().replace('"screen"', '"look"'))
    kept = {file: file.read_bytes() for file in (files[0], files[2], files[3])}
    assert not facts
    with Journalled(bench, tmp_path / "journal", progress, 60.0, clock) as second:
        for ask in asks:
            second.ask(ask)
    assert {file: file.read_bytes() for file in kept} == kept
    assert bench.asked == [*asks[:4], *asks[1:3], asks[4]]
    assert len(list((tmp_path / "journal").iterdir())) == 6
    assert facts == ["entries of another version in the journal, which count for nothing: 1"]
