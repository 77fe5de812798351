"""What the search decides, on answers that are written down; what it asks of real models is in test_trials.py."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lane_steps import TASK, choose_settings
from modelmill.core.errors import ModelError
from modelmill.core.evidence import Cell
from modelmill.core.progress import SilentProgress
from modelmill.steps.calibrate_quantize import workbench
from modelmill.steps.calibrate_quantize.contract import Bound, Scheme, Variant
from modelmill.steps.calibrate_quantize.contract import Search as Budget
from modelmill.steps.calibrate_quantize.run import allowed
from modelmill.steps.calibrate_quantize.search import Found, Search
from modelmill.steps.calibrate_quantize.space import PART_TOKENS, Candidate, candidates
from modelmill.steps.calibrate_quantize.trial_asks import Answer, Ask, Job, Subject, Work
from modelmill.steps.calibrate_quantize.trials import Judged, Screened, Timed, TimedCell, TrialTable, decidable
from modelmill.steps.calibrate_quantize.workbench import Workbench
from modelmill.steps.gate.estimates import Paired
from modelmill.targets.base import Precision, Runtime
from modelmill.targets.registry import RUNTIMES

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


def interval(middle: float, noise: float) -> tuple[float, float]:
    return middle * (1 - noise), middle * (1 + noise)


@dataclass
class Scripted:
    """Answers by name; what is not told is slow and right."""

    gains: Mapping[str, float]
    lost: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    divided: float = 1.0
    divides: Mapping[str, float] = field(default_factory=dict)
    """Where dividing gains another factor."""
    lost_divided: Mapping[str, int] = field(default_factory=dict)
    """Where dividing loses rows."""
    flattered: float = 1.0
    seen: Mapping[str, float] = field(default_factory=dict)
    """At first sight, where that is another gain than what longer looks find."""
    mended_by: int = 10
    paired: float = 0.01
    """How far the interval of two subjects' ratio reaches."""
    broken: Collection[str] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
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
        name = self.name_of(subject)
        divided = self.divides.get(name, self.divided) if subject.micro_batching else 1.0
        return self.gains.get(name, 1.0) * spared * divided

    def ask(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        first = ask.subjects[0]
        name = self.name_of(first)
        if name in self.failures:
            return Answer(failure=self.failures[name])
        if ask.work is Work.SCREEN:
            size = 100 if first.variant.scheme is Scheme.NONE else 26
            seen = self.seen.get(name, self.gain(first)) * (1.0 if first.micro_batching else self.flattered)
            size, moves = self.sizes.get(name, size), 1.5 if name in self.broken else 0.01
            return Answer(screened=Screened(size_bytes=size, deviation=moves, timed=timed(seen)))
        if ask.work is Work.TIME:
            gains = [self.gain(subject) for subject in ask.subjects]
            faster = [[interval(one / other, self.paired) for other in gains] for one in gains]
            return Answer(timed=[timed(gain) for gain in gains], faster=faster)
        if ask.work is Work.LIST_PRODUCTS:
            return Answer(products=PRODUCTS)
        if ask.work is Work.COMPARE:
            (alone,) = set(PRODUCTS) - set(first.variant.keep_float)
            if alone in self.unranked:
                return Answer(failure=self.unranked[alone])
            return Answer(deviation=0.1 * PRODUCTS.index(alone))
        lost = self.lost.get(name, 0) // self.mended_by ** len(first.variant.keep_float)
        lost += self.lost_divided.get(name, 0) if first.micro_batching else 0
        flips = self.flips.get(name, 0)
        return Answer(judged=Judged(rows=self.rows, lost=lost, gained=0, neighbours=64, flips=flips, moved=0.0))

    def works(self, work: Work) -> list[str]:
        return [self.name_of(ask.subjects[0]) for ask in self.asked if ask.work is work]


def search(bench: Scripted, bound: Bound | None = None, **budget: float) -> Found:
    settings = choose_settings(bound=bound or Bound(), search=Budget.model_validate({"trials": 40, **budget}))
    return Search(bench, settings, 2, 100, SilentProgress()).run(SPACE)


def chosen(found: Found) -> str:
    return found.trials[found.chosen].name


def table_of(found: Found) -> TrialTable:
    return TrialTable(
        threads=2, bound=Bound(), checkpoint_bytes=100, seconds=1.0, trials=found.trials, chosen=found.chosen
    )


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
    lost = {**{candidate.name: 90 for candidate in only}, "dynamic int8, tanh GELU": 80}
    bench = Scripted({}, lost=lost, mended_by=1)
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
    tried = [trial for trial in search(Scripted({"dynamic int8": 2.0}, divided=0.9)).trials if trial.micro_batching]
    assert len(tried) == len(PART_TOKENS) + 1
    assert chosen(search(Scripted({"dynamic int8": 2.0}, divided=0.9))) == "dynamic int8"


def test_what_is_as_fast_whole_by_the_clock_is_divided_alike() -> None:
    bench = Scripted({"dynamic int8": 2.0, "static int8": 1.98}, divided=1.2, divides={"static int8": 1.4})
    found = search(bench)
    assert chosen(found).startswith("static int8, row by row")
    divided = [trial.name for trial in found.trials if trial.micro_batching is not None]
    assert len([name for name in divided if name.startswith("static")]) == 1
    slower = search(Scripted({"dynamic int8": 2.0, "static int8": 1.9}, divided=1.2, divides={"static int8": 1.4}))
    assert chosen(slower).startswith("dynamic int8, row by row")
    lossy = search(Scripted({"dynamic int8": 2.0, "static int8": 2.02}, lost={"static int8": 60}, divided=1.2))
    assert not [trial for trial in lossy.trials if trial.micro_batching and trial.name.startswith("static")]


def test_what_loses_too_much_by_being_divided_stays_whole_and_no_products_are_sorted_for_it() -> None:
    bench = Scripted({"dynamic int8": 2.0}, divided=1.2, lost_divided={"dynamic int8": 60})
    assert chosen(search(bench)) == "dynamic int8"
    assert not bench.works(Work.LIST_PRODUCTS)


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


@pytest.mark.parametrize(("whole", "precision"), [(1.02, Precision.FLOAT32), (1.2, Precision.INT8)])
def test_divided_int8_is_held_against_float32_divided_alike(whole: float, precision: Precision) -> None:
    found = search(Scripted({"dynamic int8": whole}, divided=1.4))
    best = found.trials[found.chosen]
    assert best.variant.precision is precision
    assert best.micro_batching is not None
    alike = [trial for trial in found.trials if trial.name.startswith("float32, ") and trial.micro_batching]
    assert [trial.micro_batching for trial in alike] == [best.micro_batching]


def test_float32_is_divided_alike_although_the_budget_is_spent() -> None:
    # Six first looks, then one judged, six divisions, and the judging of the divided one.
    found = search(Scripted({"dynamic int8": 1.02}, divided=1.4), trials=14)
    assert found.trials[found.chosen].variant.precision is Precision.FLOAT32


def test_what_is_quickly_made_is_divided_before_histograms_are_filled() -> None:
    found = search(Scripted({"static int8": 3.0}, divided=1.2), seconds=20.0)
    names = [trial.name for trial in found.trials]
    assert found.trials[found.chosen].micro_batching is not None
    slow = [name for name in names if "entropy" in name or "percentile" in name]
    assert names.index("static int8, row by row, 2 at a time") < min([*map(names.index, slow), len(names)])
    late = search(Scripted({"static int8": 2.0, "static int8, entropy": 3.0}, divided=1.2))
    assert chosen(late).startswith("static int8, entropy, row by row")


def test_first_looks_leave_seconds_to_judge_and_to_divide() -> None:
    found = search(Scripted({"dynamic int8": 2.0}, divided=1.4), seconds=7.0)
    assert [trial.name for trial in found.trials].index("dynamic int8, row by row, 2 at a time") < len(SPACE) - 2
    assert found.trials[found.chosen].micro_batching is not None


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({}, "another runtime"),
        ({"precisions": [Precision.INT8]}, "allow float32"),
    ],
)
def test_where_nothing_runs_there_is_no_choice_and_each_candidate_is_named(
    changes: dict[str, list[Precision]], fix: str
) -> None:
    bench = Scripted({}, failures=dict.fromkeys(NAMES.values(), "it died of SIGSEGV"))
    settings = choose_settings(search=Budget(trials=40), **changes)
    with pytest.raises(ModelError, match="no candidate can be run") as error:
        Search(bench, settings, 2, 100, SilentProgress()).run(SPACE)
    assert all(f"{name}: it died of SIGSEGV" in error.value.what for name in NAMES.values())
    assert fix in str(error.value.fix)


def test_where_calibrating_takes_too_much_memory_the_budget_is_what_to_change() -> None:
    static = [item for item in SPACE if item.variant.scheme is Scheme.STATIC]
    bench = Scripted({}, failures=dict.fromkeys(NAMES.values(), "calibrating takes more memory than allowed"))
    settings = choose_settings(search=Budget(trials=40, max_calibration_rss_bytes=1))
    with pytest.raises(ModelError) as error:
        Search(bench, settings, 2, 100, SilentProgress()).run(static)
    assert "search.max_calibration_rss_bytes" in str(error.value.fix)


def test_what_moves_by_its_whole_scale_is_not_judged_and_the_table_says_so() -> None:
    bench = Scripted({"static int8": 3.0}, broken={"static int8"})
    found = search(bench)
    assert chosen(found) != "static int8"
    (row,) = [row for row in table_of(found).rows() if row.name == "static int8"]
    assert row.passes is None
    assert row.failure == "not judged: its outputs move by their whole scale"
    with pytest.raises(ModelError, match="move by their whole scale"):
        search(Scripted({}, broken=set(NAMES.values())))


@pytest.mark.parametrize("lost", range(0, 6))
@pytest.mark.parametrize("gained", [0, 1])
def test_the_search_and_the_gate_have_one_interval(lost: int, gained: int) -> None:
    rows = 420
    judged = Judged(rows=rows, lost=lost, gained=gained, neighbours=64, flips=0, moved=0.0)
    gate = Paired(metric="accuracy", rows=rows, lost=lost, gained=gained, candidate_correct=400).drop_bounds(0.95)
    assert judged.worst_points(0.95) == pytest.approx(gate[1], abs=1e-12)


def test_as_many_rows_decide_as_at_the_gate() -> None:
    # 0.95 = 1 - 0.99 ** n: with no row lost or gained, 299 rows show that at most 1 point is lost.
    assert [decidable(rows, Bound()) for rows in (298, 299)] == [False, True]


def test_too_few_rows_and_a_gate_that_judges_otherwise_are_said() -> None:
    (note,) = search(Scripted({"dynamic int8": 2.0}, rows=60)).notes
    assert note.startswith("60 tune rows cannot show that at most 1 points are lost at 95%")
    assert search(Scripted({"dynamic int8": 2.0})).notes == []
    assert search(Scripted({"dynamic int8": 2.0}), Bound(metric="accuracy")).notes == []
    (note,) = search(Scripted({"dynamic int8": 2.0}), Bound(metric="macro_f1", unit="talk", slices="class")).notes
    assert "the metric macro_f1 and whole units (talk) and slices (class)" in note


def test_finalists_are_compared_by_what_their_own_rounds_say() -> None:
    gains, lost = {"static int8": 2.5, "dynamic int8": 2.0}, {"static int8": 20}
    assert chosen(search(Scripted(gains, lost=lost, paired=0.05))) == "static int8, 1 float32"
    alike = search(Scripted(gains, lost=lost, paired=0.2))
    assert chosen(alike) == "dynamic int8"
    assert alike.reason.startswith("as fast as static int8, 1 float32 by the clock, and loses less")


def test_what_a_first_look_cannot_tell_from_the_fastest_is_judged_and_timed_again() -> None:
    lucky = Scripted({"dynamic int8": 2.0, "static int8": 1.9}, seen={"static int8": 2.05})
    assert chosen(search(lucky)) == "dynamic int8"
    assert chosen(search(Scripted({"dynamic int8": 2.0, "static int8": 2.05}))) == "static int8"
    # Where the clock cannot tell them apart either, the one that loses less.
    alike = search(Scripted({"dynamic int8": 2.0, "static int8": 2.05}, lost={"static int8": 2}, paired=0.05))
    assert chosen(alike) == "dynamic int8"
    assert "loses less" in alike.reason


def test_int8_that_a_first_look_cannot_tell_from_float32_is_timed_against_it() -> None:
    slow = dict.fromkeys(NAMES.values(), 0.5) | {"float32": 1.0}
    found = search(Scripted(slow | {"dynamic int8": 1.2}, seen={"dynamic int8": 0.99}))
    assert chosen(found) == "dynamic int8"
    assert chosen(search(Scripted(slow | {"dynamic int8": 1.2}, seen={"dynamic int8": 0.9}))) == "float32"


def test_no_more_than_three_that_are_close_are_judged_before_the_decision_and_none_without_seconds() -> None:
    gains = dict.fromkeys(["dynamic int8", "static int8", "static int8, entropy", "static int8, percentile"], 2.0)
    bench = Scripted(gains)
    search(bench)
    last = max(index for index, ask in enumerate(bench.asked) if ask.work is Work.TIME)
    before = [bench.name_of(ask.subjects[0]) for ask in bench.asked[:last] if ask.work is Work.JUDGE]
    assert len([name for name in before if "int8" in name]) == 3
    spent = Scripted({"dynamic int8": 2.0, "static int8": 2.0})
    search(spent, seconds=11.0)
    assert len([name for name in spent.works(Work.JUDGE) if "int8" in name]) == 1


def test_speeds_are_told_with_their_intervals() -> None:
    found = search(Scripted({"dynamic int8": 2.0}))
    assert found.reason.endswith("dynamic int8, 2.00 times as fast as unquantized (1.96 to 2.04)")
    (row,) = [row for row in table_of(found).rows() if row.chosen]
    assert row.gain_ci == (1.96, 2.04)


def test_the_margin_is_not_undone_by_what_the_clock_cannot_tell_apart() -> None:
    found = search(Scripted({"dynamic int8": 1.2}, lost={"dynamic int8": 2}, paired=0.5))
    assert chosen(found) == "dynamic int8"


def test_an_unquantized_model_that_is_the_fastest_is_said_to_be_one() -> None:
    found = search(Scripted(dict.fromkeys(NAMES.values(), 0.5) | {"float32": 1.0}))
    assert chosen(found) == "float32"
    assert "an unquantized one" in found.reason


@pytest.mark.parametrize("gain", [0.8, 2.0])
def test_without_vnni_the_choice_says_so_and_that_float32_would_be_faster(gain: float) -> None:
    settings = choose_settings(search=Budget(trials=40), precisions=[Precision.INT8])
    space = allowed(settings, ["avx2"])
    names = {item.variant.model_dump_json(): item.name for item in space}
    bench = Scripted(dict.fromkeys(names.values(), gain), names=names)
    found = Search(bench, settings, 2, 100, SilentProgress()).run(space)
    assert "7 bits, because this processor has no VNNI" in found.reason
    assert any("no VNNI" in note for note in found.notes)
    assert any("slower than the unquantized model" in note for note in found.notes) is (gain < 1)


def test_float32_that_the_budget_left_untried_is_said_to_be() -> None:
    (_, note) = search(Scripted({"dynamic int8": 2.0}), trials=2).notes
    assert "float32 was not tried" in note


@pytest.mark.parametrize(
    ("bound", "lost", "nearest"),
    [
        # float32 is four times as large as allowed, int8 loses a little too much.
        (Bound(max_size_ratio=0.26), 3, "dynamic int8"),
        (Bound(max_size_ratio=0.9), 90, "float32"),
        # What misses one bound is nearer than what misses two.
        (Bound(max_size_ratio=0.2), 3, "float32"),
    ],
)
def test_the_nearest_misses_the_fewest_bounds_and_by_the_least(bound: Bound, lost: int, nearest: str) -> None:
    only = [Candidate(item.name, item.variant) for item in SPACE if item.name in {"dynamic int8", "float32"}]
    bench = Scripted({}, lost={"dynamic int8": lost}, rows=400, mended_by=1)
    found = Search(bench, choose_settings(search=Budget(trials=40), bound=bound), 2, 100, SilentProgress()).run(only)
    assert chosen(found) == nearest
    assert "comes nearest" in found.reason


def test_what_is_seldom_the_fastest_comes_after_dividing_and_spends_what_is_left() -> None:
    bench = Scripted({"dynamic int8": 2.0, "static int8, symmetric": 3.0}, divided=1.2)
    found = search(bench)
    names = [trial.name for trial in found.trials]
    divided = next(index for index, trial in enumerate(found.trials) if trial.micro_batching is not None)
    rare = [names.index(candidate.name) for candidate in SPACE if candidate.rare]
    assert divided < min(rare)
    assert chosen(found).startswith("static int8, symmetric, ")
    spent = search(Scripted({"dynamic int8": 2.0}, divided=1.2), trials=divided + 6)
    assert not {candidate.name for candidate in SPACE if candidate.rare} & {trial.name for trial in spent.trials}
    assert spent.trials[spent.chosen].micro_batching is not None


@pytest.mark.parametrize("runtime", list(Runtime))
def test_a_default_search_reaches_its_divisions_whatever_it_may_try(runtime: Runtime) -> None:
    usual = [item for item in space_of(runtime) if not item.rare]
    divisions = len(PART_TOKENS) + 1
    assert usual
    assert len(usual) + divisions < Budget().trials


@pytest.mark.parametrize(
    ("runtime", "change"),
    [
        (Runtime.ONNXRUNTIME, {"symmetric": True}),
        (Runtime.OPENVINO, {"symmetric": True}),
        (Runtime.ONNXRUNTIME, {"embeddings": False}),
        (Runtime.OPENVINO, {"embeddings": False}),
        (Runtime.ONNXRUNTIME, {"session": {"session.intra_op.allow_spinning": "0"}}),
    ],
)
def test_symmetric_ranges_float32_tables_and_sleeping_threads_are_candidates(
    runtime: Runtime, change: dict[str, object]
) -> None:
    assert [item for item in space_of(runtime) if item.variant.model_copy(update=change) == item.variant]


def test_tables_that_stay_float32_by_a_setting_are_no_candidate_of_their_own() -> None:
    space = space_of(Runtime.ONNXRUNTIME, embeddings=False)
    assert len({item.variant.model_dump_json() for item in space}) == len(space)
    assert "dynamic int8" in {item.name for item in space}


def space_of(runtime: Runtime, embeddings: bool = True) -> list[Candidate]:
    options = {"scheme": None, "calibration_rows": 64, "reduce_range": False, "has_bf16": True}
    return candidates(runtime, RUNTIMES[runtime].precisions, embeddings=embeddings, **options)
