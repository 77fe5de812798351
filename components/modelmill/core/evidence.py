"""What is measured and judged: the documents that evaluate and gate write, and reports and bundles show."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from modelmill.core.contract import JSON, Closed
from modelmill.core.hardware import Hardware
from modelmill.core.served import Opponent, Standing
from modelmill.core.smoke import Smoke, SmokeState

Interval = tuple[float, float]
"""Lower and upper bound."""


class Direction(StrEnum):
    """Which way a metric is better."""

    HIGHER = "higher"
    LOWER = "lower"


class Metric(Closed):
    """What a number of a task means."""

    name: str
    direction: Direction = Direction.HIGHER
    unit: str = Field("share", description="share: 0 to 1")


class Difference(StrEnum):
    """What may be said of a model's speed against another's."""

    FASTER = "faster"
    SLOWER = "slower"
    WITHIN_NOISE = "within noise"


class Cell(Closed):
    """One shape of input."""

    batch_size: int = Field(ge=1, le=1024, description="inputs a call")
    sequence_length: int = Field(ge=1, le=8192, description="tokens; cut to the model's maximum")


TRIALS = "trials.json"
"""Beside a choice that was searched for; its field ``tried`` holds rows of `Tried`."""


class Tried(Closed):
    """A candidate that the search for the fastest one looked at."""

    name: str
    chosen: bool = False
    passes: bool | None = Field(None, description="whether it keeps to the bounds; None: it was not judged")
    failure: str | None = Field(None, description="why it could not be tried, or does not pass")
    gain: float | None = Field(None, description="over the unquantized model: geometric mean of the workloads")
    gain_ci: Interval | None = Field(None, description="two-sided, 95 %, within one process; 1 to 1: it is that model")
    size_bytes: int | None = None
    deviation: float | None = Field(None, description="largest difference of outputs over their scale, on a few rows")
    drop_points: float | None = Field(None, description="points of accuracy lost on the tune rows")
    worst_points: float | None = Field(None, description="that may be lost at most, at the bound's confidence")
    flips: int | None = Field(None, description="predictions that change with the rows beside them or with padding")


class Searched(Closed):
    """A lane's search for the fastest candidate, as a report shows it."""

    tried: list[Tried] = Field(description="in the order of their first look")
    reason: str = Field("", description="why the chosen one")
    notes: list[str] = Field(default_factory=list, description="what a reader must know: a budget that ended it")


class EncoderLatency(Closed):
    """One cell of the latency grid: a forward pass over a batch of equal lengths, in milliseconds."""

    workload: Literal["encoder"] = "encoder"
    batch_size: int
    sequence_length: int = Field(description="tokens")
    baseline_ms_p50: float = Field(
        description="PyTorch eager (float32 on a CPU, fp16 on a GPU), same threads, same processes, interleaved; "
        "medians are the geometric mean of the processes'"
    )
    baseline_ms_p95: float = Field(description="of all processes' calls together")
    unquantized_ms_p50: float = Field(
        description="the fastest float32 model on the same runtime: exported, optimized, or divided"
    )
    candidate_ms_p50: float
    candidate_ms_p95: float
    speedup: float = Field(description="baseline over candidate, medians; the geometric mean of the processes'")
    speedup_ci: Interval
    gain_over_unquantized: float
    gain_over_unquantized_ci: Interval
    unquantized: str | None = Field(None, description="which one was fastest here: exported, optimized or divided")
    noise_ratio_ci: Interval | None = Field(None, description="the baseline timed against itself in this cell")
    speedup_difference: Difference | None = Field(None, description="of the candidate from the baseline")
    gain_difference: Difference | None = Field(None, description="of the candidate from the unquantized model")
    samples_ms: dict[str, list[float]] = Field(
        default_factory=dict, description="baseline, unquantized, candidate → every timed call in order"
    )
    samples_each: list[int] = Field(
        default_factory=list, description="of how many calls each process's part of the samples is, in order"
    )


Latency = Annotated[EncoderLatency, Field(description="a tagged union by workload")]


class Throughput(Closed):
    """Evaluation texts at their real lengths, in the batch plan that evaluate uses; tokenising is not in the time."""

    texts: int
    baseline_texts_per_second: float
    unquantized_texts_per_second: float
    candidate_texts_per_second: float
    candidate_texts_per_second_ci: Interval | None = Field(None, description="over the processes")
    passes: int | None = Field(None, description="how often each model ran all texts")
    unquantized: str | None = Field(None, description="which one was fastest here: exported, optimized or divided")
    speedup: float | None = Field(None, description="candidate over baseline, in texts a second")
    speedup_ci: Interval | None = None
    gain_over_unquantized: float | None = None
    gain_over_unquantized_ci: Interval | None = None
    noise_ratio_ci: Interval | None = Field(None, description="the baseline timed against itself on the texts")
    speedup_difference: Difference | None = None
    gain_difference: Difference | None = None


class TextLatency(Closed):
    """Evaluation texts at their real lengths, one a call, in milliseconds: what a single request waits for the model.

    Tokenising is not in the time. Medians are the geometric mean of the processes', tails of all calls together.
    """

    texts: int
    baseline_ms_p50: float
    baseline_ms_p95: float
    baseline_ms_p99: float
    unquantized_ms_p50: float
    unquantized_ms_p95: float
    unquantized_ms_p99: float
    candidate_ms_p50: float
    candidate_ms_p95: float
    candidate_ms_p99: float
    unquantized: str = Field(description="which one was fastest here: exported, optimized or divided")
    speedup: float = Field(description="baseline over candidate, medians")
    speedup_ci: Interval
    gain_over_unquantized: float
    gain_over_unquantized_ci: Interval
    noise_ratio_ci: Interval = Field(description="the baseline timed against itself on the texts")
    speedup_difference: Difference
    gain_difference: Difference


class Measurements(Closed):
    """``measurements.json``: what one model takes on one hardware class."""

    format: int = 1
    hardware: Hardware
    hardware_class: str
    packages: dict[str, str] = Field(description="versions of the runtimes that were timed")
    latency: list[Latency]
    throughput: Throughput | None = None
    one_text: TextLatency | None = Field(
        None, description="one evaluation text at a time; null where none was asked for, or in documents of before it"
    )
    processes: int = Field(1, description="fresh processes that times come from; 1: intervals are within one")
    noise_ratio_ci: Interval = Field(
        description="the baseline timed against itself, the widest of the cells: what no difference looks like"
    )
    load_seconds: float = Field(
        description="from file to the first answer in a fresh process, its imports left out; median of several"
    )
    load_seconds_each: list[float] = Field(default_factory=list, description="load_seconds of each process")
    first_answer_seconds: float | None = Field(None, description="the part of load_seconds after loading; median")
    peak_rss_bytes: int = Field(description="of a process that loads and runs the candidate alone")
    size_bytes: int = Field(description="the candidate's graphs with external data")
    checkpoint_bytes: int = Field(description="the checkpoint's safetensors")
    size_ratio: float = Field(description="size_bytes over checkpoint_bytes")
    method: str = Field("", description="how times became ratios and intervals, with the source")
    notes: list[str] = Field(
        default_factory=list, description="what a reader must know: cells that were cut, models that are one"
    )


class Shift(Closed):
    """What became of predictions among other neighbours in the batch."""

    flips: int = Field(description="rows whose prediction changed")
    largest: float = Field(description="of an output's change, absolute")
    median: float = Field(description="over rows, of the largest change of a row's outputs")


class Neighbours(Closed):
    """The same rows predicted in other batches: dynamic quantization scales by a whole batch, padding included."""

    rows: int = Field(description="evaluation rows tried, drawn by a fixed seed")
    flips: int = Field(description="rows whose prediction changed in any of them")
    alone: Shift = Field(description="each row in a batch of its own")
    mixed: Shift = Field(description="rows in random order, eight a batch, as a server gathers them")
    padded: Shift | None = Field(
        None, description="each row in a batch of its own, with more padding; null in documents of before it was tried"
    )


class Verdict(StrEnum):
    """What the gate says."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Check(Closed):
    """One threshold of the gate."""

    name: str = Field(description="the recipe's field: max_drop_points")
    verdict: Verdict
    threshold: float
    value: float | None = Field(description="None: there is none to tell")
    interval: Interval | None = None
    words: str = Field(description="one sentence for people: what was found, and why that is the verdict")
    rows_to_settle: int | None = Field(
        None, description="inconclusive: evaluation rows in all that would decide, at the rates seen"
    )


class ClassChange(Closed):
    """One class, before and after."""

    label: str
    rows: int
    baseline_correct: int
    candidate_correct: int


BY_CLASS = "class"
"""What slices are by where each of the reference's labels is one."""


class Slice(Closed):
    """Rows of one class, or of one value of a column, judged by themselves."""

    name: str
    rows: int
    baseline_correct: int
    candidate_correct: int
    lost: int = Field(description="rows only the baseline gets right")
    gained: int = Field(description="rows only the candidate gets right")
    drop_points: float
    drop_points_ci: Interval | None = Field(None, description="as the lane's, for this slice alone; None: thin")
    p_value: float | None = Field(None, description="of so large a drop where the allowed one is the truth; None: thin")
    p_corrected: float | None = Field(None, description="the same, corrected over the slices judged by Holm")
    harmed: bool = Field(False, description="the drop is shown to be more than a slice may lose")


class Slices(Closed):
    """Slices of the evaluation rows. One refuses only where its harm is demonstrated; thin ones are never judged."""

    by: str = Field(description="class, or a column of the rows")
    max_drop_points: float
    min_rows: int = Field(description="rows below which a slice is thin")
    confidence: float = Field(description="over all slices together")
    judged: list[Slice] = Field(description="the smallest p-value first")
    thin: list[Slice] = Field(description="most rows first; at most 200")
    thin_count: int

    def without_texts(self) -> Slices:
        """The same without a column's values, which are the data's; classes are the model's own."""
        if self.by == BY_CLASS:
            return self
        judged = [item.model_copy(update={"name": f"slice {number}"}) for number, item in enumerate(self.judged, 1)]
        thin = [item.model_copy(update={"name": f"thin {number}"}) for number, item in enumerate(self.thin, 1)]
        return self.model_copy(update={"judged": judged, "thin": thin})


class Against(Closed):
    """The candidate held against what is served, on the same rows and by the lane's paired method."""

    standing: Standing
    bundle: str | None = Field(None, description="the opponent's bundle")
    model: str | None = Field(None, description="the model of its lane")
    words: str = Field(description="for people: who it is, or why there is no comparison")
    value: float | None = Field(None, description="its metric; None: it gave no answers")
    value_ci: Interval | None = None
    drop_points: float | None = Field(None, description="its metric minus the candidate's, in points")
    drop_points_ci: Interval | None = None
    gained: int | None = Field(None, description="rows only the candidate gets right")
    lost: int | None = Field(None, description="rows only the opponent gets right")


class PublishedShift(Closed):
    """How far the classes of one role's rows lie from those of the run whose bundle the channel serves."""

    distance: float = Field(description="total variation")
    at_least: float = Field(description="its lower bound; all of a lane's hold together at the lane's confidence")


class RowsFound(Closed):
    """What was found about the evaluation rows before they judged; None where whoever divided the rows did not say."""

    leaked: int | None = Field(None, description="rows whose text also chose the model: train, tune or calibrate")
    leaked_with_another_label: int | None = Field(None, description="of them, rows that have another label there")
    class_shift: float | None = Field(
        None, description="total variation distance between the classes' shares here and among the training rows"
    )
    class_shift_at_least: float | None = Field(None, description="its lower bound, one-sided at the lane's confidence")
    classes: dict[str, int] | None = Field(None, description="rows of each class")
    trained_classes: dict[str, int] | None = Field(None, description="training rows of each class")
    published_shift: dict[str, PublishedShift] = Field(
        default_factory=dict, description="evaluate and train → distance from the rows of what the channel serves"
    )


class McNemar(Closed):
    """McNemar's test of whether the models differ at all. It is told, and decides nothing."""

    exact_p: float
    mid_p: float


class Confusion(Closed):
    """Rows of one reference label that the two models call differently."""

    reference: str
    baseline: str
    candidate: str
    rows: int


class Disagreement(Closed):
    """One row on which the two models disagree."""

    row: str = Field(description="the row's id: file:line")
    reference: str
    baseline: str
    candidate: str
    text: str | None = Field(None, description="the row's text; left out of bundles unless the recipe asks for it")


class LaneEvidence(Closed):
    """``verdict.json``: a lane's verdict with all it stands on."""

    format: int = 1
    target: str
    task: str
    verdict: Verdict
    reasons: list[str] = Field(description="the verdict in words, the deciding check first")
    checks: list[Check]
    metric: Metric
    method: str = Field(description="the paired method and its source")
    confidence: float
    rows: int = Field(description="rows judged")
    units: int | None = Field(None, description="units that the rows belong to; None: each row stands for itself")
    baseline: float
    candidate: float
    baseline_ci: Interval
    candidate_ci: Interval
    drop_points: float = Field(description="baseline minus candidate, in points (100 × share)")
    drop_points_ci: Interval
    gained: int = Field(description="rows only the candidate gets right")
    lost: int = Field(description="rows only the baseline gets right")
    metrics: dict[str, dict[str, float]] = Field(description="baseline and candidate → metric → share")
    classes: list[ClassChange] = Field(description="classes with a changed count, most changed first")
    confusions: list[Confusion] = Field(description="most rows first")
    slices: Slices | None = Field(None, description="None: the policy asks for none")
    mcnemar: McNemar | None = None
    rows_found: RowsFound | None = None
    against: dict[Opponent, Against] = Field(
        default_factory=dict, description="what the channel serves, where the policy asks for it"
    )
    neighbours: Neighbours | None = Field(None, description="of the candidate; None: evaluate did not try")
    smoke: Smoke | None = Field(None, description="what a real server made of the candidate")
    disagreements: list[Disagreement] = Field(description="at most 200")
    disagreement_count: int
    measurements: Measurements
    precision: str
    model_facts: dict[str, JSON] = Field(description="parity, fused operators, quantized operators")
    digests: dict[str, str] = Field(description="input port → digest of what was judged")

    @property
    def untried(self) -> str | None:
        """Why no server has tried the lane, in words that may be empty; None where one has."""
        if self.smoke is None:
            return ""
        return self.smoke.words if self.smoke.state is SmokeState.NOT_RUN else None

    def without_texts(self) -> LaneEvidence:
        """The same without texts of the data: what may leave the store where the recipe does not say more."""
        rows = [row.model_copy(update={"text": None}) for row in self.disagreements]
        return self.model_copy(update={"disagreements": rows, "slices": self.slices and self.slices.without_texts()})
