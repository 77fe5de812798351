"""What the search decides, on answers that are written down; what it asks of real models is in test_trials.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from lane_steps import choose_settings
from modelmill.core.progress import SilentProgress
from modelmill.steps.calibrate_quantize.contract import Bound, Scheme, Variant
from modelmill.steps.calibrate_quantize.contract import Search as Budget
from modelmill.steps.calibrate_quantize.run import allowed
from modelmill.steps.calibrate_quantize.search import Found, Search
from modelmill.steps.calibrate_quantize.space import PART_TOKENS, Candidate, candidates
from modelmill.steps.calibrate_quantize.trial_asks import Answer, Ask, Subject, Work
from modelmill.steps.calibrate_quantize.trials import Judged, Screened, Timed, TimedCell
from modelmill.targets.base import Precision, Runtime
from modelmill.targets.registry import RUNTIMES

ALL = (Precision.FLOAT32, Precision.INT8)
SPACE = candidates(
    Runtime.ONNXRUNTIME, ALL, scheme=None, embeddings=True, calibration_rows=64, reduce_range=False, has_bf16=False
)
NAMES = {candidate.variant.model_dump_json(): candidate.name for candidate in SPACE}
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
        if ask.work is Work.RANK_PRODUCTS:
            return Answer(products={f"model/{number}": 0.1 * number for number in range(10)})
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
    assert bench.works(Work.RANK_PRODUCTS) == ["static int8"]


def test_what_passes_is_divided_before_products_are_sorted_and_what_was_mended_after_that() -> None:
    bench = Scripted({"static int8": 3.0, "dynamic int8": 2.0}, lost={"static int8": 20}, divided=1.2)
    found = search(bench)
    divided = [trial.name for trial in found.trials if trial.micro_batching is not None]
    assert divided[0].startswith("dynamic int8, row by row")
    assert divided[-1].startswith("static int8, 1 float32")
    ranked = next(index for index, ask in enumerate(bench.asked) if ask.work is Work.RANK_PRODUCTS)
    assert next(index for index, ask in enumerate(bench.asked) if ask.subjects[-1].micro_batching) < ranked
    assert found.trials[found.chosen].name in divided


def test_one_that_is_hardly_faster_than_what_passes_is_not_mended() -> None:
    bench = Scripted({"static int8": 2.05, "dynamic int8": 2.0}, lost={"static int8": 60})
    assert chosen(search(bench)) == "dynamic int8"
    assert not bench.works(Work.RANK_PRODUCTS)


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
    slower = search(Scripted({"dynamic int8": 2.0}, divided=0.9))
    assert any(trial.micro_batching is not None for trial in slower.trials)
    assert chosen(slower) == "dynamic int8"


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
