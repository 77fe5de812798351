"""The process that tries candidates: it makes, runs and times them, so that one that crashes its runtime ends alone.

It reads asks from stdin and writes answers to stdout, a line of JSON each, and ends with its parent.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import TextIO

import numpy as np

from modelmill.core.batch_plan import BatchPlan
from modelmill.core.child import lines_from_parent
from modelmill.core.errors import ModelError, ModelmillError
from modelmill.core.evidence import Interval
from modelmill.core.model import ModelDocument, read_model, write_model
from modelmill.core.progress import SilentProgress
from modelmill.core.rows import read_dataset, read_rows
from modelmill.measuring.cells import fit_cells
from modelmill.measuring.models import graph_bytes, same_graphs
from modelmill.measuring.neighbours import MIXED, PADDING, ROWS
from modelmill.measuring.predicting import join, padded_batches, plan_of, predict
from modelmill.measuring.ratios import Ratio, over_workloads, ratio
from modelmill.measuring.rounds import Call, Rounds, interleave
from modelmill.measuring.timing_asks import Failure
from modelmill.steps.calibrate_quantize.contract import Variant
from modelmill.steps.calibrate_quantize.making_process import make_apart
from modelmill.steps.calibrate_quantize.trial_asks import Answer, Ask, Job, Line, Making, Subject, Work, words_of
from modelmill.steps.calibrate_quantize.trials import Judged, Screened, Timed, TimedCell
from modelmill.steps.calibrate_quantize.variants import make_variant, product_names, quantizes_pairs
from modelmill.targets.base import Session
from modelmill.targets.pytorch import load_processor
from modelmill.targets.registry import open_session_of
from modelmill.tasks import registry
from modelmill.tasks.base import Batch

PROBES = 64
"""Tune rows whose outputs are compared at first sight."""
TEXTS = 64
TEXTS_A_BATCH = 32
"""Texts that are timed at their real lengths, in batches as they come."""
LEAST_ROUNDS = 4
KEPT = 6
"""Made models that are kept on disk, the last used ones."""
TEXTS_CELL = "texts"


class Workshop:
    """All that trying candidates shares.

    Args:
        job: What the search is about.
        folder: Where candidates are made.

    Raises:
        ModelmillError: The unquantized model, its tokenizer or the rows are broken.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self._job, self._folder = job, folder
        self._task = registry.get(job.task)
        self._document = read_model(job.model)
        self._processor = load_processor(job.model)
        rows = list(read_rows(job.tune))
        self._features = self._task.encode(self._processor, rows, self._document.max_length)
        self._references = self._task.references(rows, read_dataset(job.tune).labels)
        self._plan = plan_of(self._features)
        self._probes = spread(len(rows), PROBES)
        self._beside = spread(len(rows), ROWS)
        self._made: OrderedDict[str, Path] = OrderedDict()
        self._number = 0
        self._unquantized = open_session_of(job.runtime)(job.model, job.threads)
        self._workloads = self._all_workloads()
        self._expected: np.ndarray | None = None
        self._expected_probes = self._outputs(self._unquantized, one_by_one(self._probes))

    def answer(self, ask: Ask) -> Answer:
        """Do what is asked."""
        first = ask.subjects[0]
        match ask.work:
            case Work.SCREEN:
                return Answer(screened=self._screen(first, ask))
            case Work.JUDGE:
                return Answer(judged=self._judge(first))
            case Work.LIST_PRODUCTS:
                pairs = quantizes_pairs(first.variant.scheme, self._job.runtime)
                return Answer(products=product_names(self._job.model, pairs))
            case Work.COMPARE:
                return Answer(deviation=self._deviation(self._open(first)))
            case Work.TIME:
                timed, faster = self._time([self._open(item) for item in ask.subjects], ask)
                return Answer(timed=timed, faster=faster)

    def _screen(self, subject: Subject, ask: Ask) -> Screened:
        session = self._open(subject)
        deviation = self._deviation(session)
        (timed,), _ = self._time([session], ask)
        directory = self._make(subject.variant)
        size = graph_bytes(directory, read_model(directory))
        return Screened(size_bytes=size, deviation=deviation, timed=timed)

    def _judge(self, subject: Subject) -> Judged:
        # One thread each: workers run whole batches side by side.
        session = self._open(subject, threads=1)
        if self._expected is None:
            alone = open_session_of(self._job.runtime)(self._job.model, 1)
            self._expected = self._predicted(alone)
        outputs = self._predicted(session)
        decoded = self._task.decode(outputs)
        right = np.asarray(self._task.correct(decoded, self._references), bool)
        before = np.asarray(self._task.correct(self._task.decode(self._expected), self._references), bool)
        tried, each = self._beside, one_by_one(self._beside)
        changed, moved = np.zeros(len(tried), bool), 0.0
        for plan, padding in ((each, 0), (self._shuffled(tried), 0), (each, PADDING)):
            found = self._outputs(session, plan, padding)
            moved = max(moved, float(np.abs(found - outputs[tried]).max()))
            differs = self._task.decode(found) != decoded[tried]
            changed |= differs.reshape(len(differs), -1).any(axis=1)
        lost, gained = count_with_flips(before, right, np.asarray(tried), changed)
        return Judged(
            rows=len(right),
            lost=lost,
            gained=gained,
            neighbours=len(tried),
            flips=int(changed.sum()),
            moved=moved / self._scale(),
        )

    def _deviation(self, session: Session) -> float:
        return (
            float(np.abs(self._outputs(session, one_by_one(self._probes)) - self._expected_probes).max())
            / self._scale()
        )

    def _scale(self) -> float:
        return float(np.abs(self._expected_probes).max()) or 1.0

    def _time(self, sessions: Sequence[Session], ask: Ask) -> tuple[list[Timed], list[list[Interval]]]:
        """Each session against the unquantized model, and against each other."""
        names = ["" if session is self._unquantized else str(index) for index, session in enumerate(sessions)]
        timed_sessions = {"": self._unquantized, **dict(zip(names, sessions, strict=True))}
        cells: list[list[TimedCell]] = [[] for _ in sessions]
        taken: list[Rounds] = []
        for name, (batches, call_of) in self._workloads.items():
            if not ask.single_rows and max(len(next(iter(batch.values()))) for batch in batches) == 1:
                continue
            calls = {item: call_of(session) for item, session in timed_sessions.items()}
            rounds = interleave(calls, seconds=ask.seconds, seed=self._job.seed, least=LEAST_ROUNDS)
            for item, timed in zip(names, cells, strict=True):
                timed.append(_cell(name, rounds, item, self._job.seed))
            taken.append(rounds)
        return [Timed(cells=timed) for timed in cells], _faster(taken, names, self._job.seed)

    def _all_workloads(self) -> Mapping[str, tuple[Sequence[Batch], Callable[[Session], Call]]]:
        """Workload → its batches, and what calls a session with them."""
        found: dict[str, Sequence[Batch]] = {}
        for cell in fit_cells(self._job.cells, self._document.max_length)[0]:
            batch = self._task.sample(self._processor, cell.batch_size, cell.sequence_length, self._job.seed)
            found[f"batch {cell.batch_size}, length {cell.sequence_length}"] = [batch]
        count = min(TEXTS, len(self._features))
        plan = BatchPlan(
            tuple(tuple(range(start, min(start + TEXTS_A_BATCH, count))) for start in range(0, count, TEXTS_A_BATCH))
        )
        found[TEXTS_CELL] = padded_batches(self._task, self._processor, self._features, plan)
        return {name: (batches, _caller(batches)) for name, batches in found.items()}

    def _predicted(self, session: Session) -> np.ndarray:
        found = predict(session, self._task, self._processor, self._features, self._plan, workers=self._job.threads)
        return join([found], len(self._features))

    def _outputs(self, session: Session, plan: Sequence[Sequence[int]], padding: int = 0) -> np.ndarray:
        """Outputs of the plan's rows in ascending order, each batch padded by some tokens more than it needs."""
        kept: dict[int, np.ndarray] = {}
        for rows in plan:
            features = [self._features[row] for row in rows]
            longest = max(len(column) for row in features for column in row.values())
            length = min(longest + padding, self._document.max_length)
            batch = self._task.collate(self._processor, features, length)
            outputs = np.asarray(self._task.outputs_of(session.run(batch)), np.float32)
            kept.update(zip(rows, outputs, strict=True))
        return _finite(np.stack([kept[row] for row in sorted(kept)]))

    def _shuffled(self, rows: Sequence[int]) -> list[list[int]]:
        order = np.random.default_rng(self._job.seed).permutation(rows).tolist()
        return [order[start : start + MIXED] for start in range(0, len(order), MIXED)]

    def _open(self, subject: Subject, threads: int | None = None) -> Session:
        """A session of the candidate; the unquantized model's own where it is that, opened alike."""
        directory = self._make(subject.variant)
        document = read_model(directory)
        if document.micro_batching != subject.micro_batching:
            document = document.model_copy(update={"micro_batching": subject.micro_batching})
            write_model(directory, document)
        opened_alike = threads is None and _options(document) == _options(self._document)
        if opened_alike and same_graphs(directory, self._job.model):
            return self._unquantized
        return open_session_of(self._job.runtime)(directory, threads or self._job.threads)

    def _make(self, variant: Variant) -> Path:
        key = variant.model_dump_json()
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key]
        self._number += 1
        directory = self._folder / f"{self._number:04d}"
        directory.mkdir()
        job = self._job
        try:
            if variant.max_calibration_rss_bytes is None:
                make_variant(job.model, job.calibrate, directory, variant, self._task, job.runtime, SilentProgress())
            else:
                # What this process holds is none of the calibration's.
                make_apart(Making(job=job, variant=variant, output=directory))
        except BaseException:
            rmtree(directory)
            raise
        self._made[key] = directory
        while len(self._made) > KEPT:
            rmtree(self._made.popitem(last=False)[1])
        return directory


def count_with_flips(before: np.ndarray, right: np.ndarray, tried: np.ndarray, changed: np.ndarray) -> tuple[int, int]:
    """(lost, gained) rows where a row counts as right only if it is right whatever stands beside it.

    Args:
        before: Whether the unquantized model gets each row right, shape (rows,).
        right: Whether the candidate does, in the batches of the plan, shape (rows,).
        tried: Numbers of the rows that were tried in other batches.
        changed: Whether their predictions changed in any of them, shape (len(tried),).

    Returns:
        What flips among the rows tried is taken to flip among all, in the same share.
    """
    flipped = tried[changed & right[tried]]
    share = len(right) / len(tried)
    kept, gained = int((before & right).sum()), int((~before & right).sum())
    newly_lost = min(round(share * before[flipped].sum()), kept)
    return int((before & ~right).sum()) + newly_lost, max(gained - round(share * (~before[flipped]).sum()), 0)


def _finite(outputs: np.ndarray) -> np.ndarray:
    if not np.isfinite(outputs).all():
        what = "its outputs are not finite"
        raise ModelError(what)
    return outputs


def spread(count: int, most: int) -> list[int]:
    """Numbers of at most so many of ``count`` rows, evenly spread and rising: files come sorted by label."""
    return [int(row) for row in np.unique(np.linspace(0, count - 1, min(most, count)).round())]


def one_by_one(rows: Sequence[int]) -> list[list[int]]:
    """A batch for each row."""
    return [[row] for row in rows]


def _caller(batches: Sequence[Batch]) -> Callable[[Session], Call]:
    def of(session: Session) -> Call:
        def call(_: int) -> None:
            for batch in batches:
                session.run(batch)

        return call

    return of


def _cell(workload: str, rounds: Rounds, name: str, seed: int) -> TimedCell:
    found = ratio(rounds, "", name, seed=seed)
    return TimedCell(name=workload, ms=rounds.percentile_ms(name, 50), gain=found.value, gain_ci=found.interval)


def _say(stream: TextIO, line: Line) -> None:
    stream.write(line.model_dump_json() + "\n")
    stream.flush()


def _options(document: ModelDocument) -> tuple[object, ...]:
    """What a session is opened with besides the graphs."""
    return document.session, document.micro_batching


def _faster(taken: Sequence[Rounds], names: Sequence[str], seed: int) -> list[list[Interval]]:
    found: list[list[Interval]] = [[(1.0, 1.0)] * len(names) for _ in names]
    for one, name in enumerate(names):
        for other in range(one):
            each: list[Ratio] = [ratio(rounds, names[other], name, seed=seed) for rounds in taken]
            low, high = over_workloads(each).interval
            found[one][other], found[other][one] = (low, high), (1 / high, 1 / low)
    return found


def main() -> None:
    """``python -m modelmill.steps.calibrate_quantize.trial_process JOB``: asks on stdin, answers on stdout."""
    # What libraries print must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = lines_from_parent()
    file = Path(sys.argv[1])
    try:
        workshop = Workshop(Job.model_validate_json(file.read_bytes()), file.parent)
    except ModelmillError as error:
        _say(answers, Line(failure=Failure.of(error)))
        return
    _say(answers, Line())
    while True:
        ask = Ask.model_validate_json(asked.get())
        try:
            answer = workshop.answer(ask)
        except ModelmillError as error:
            answer = Answer(failure=error.what)
        except Exception as error:  # runtimes and rewriters have errors of their own; the search names them and goes on
            answer = Answer(failure=words_of(error))
        _say(answers, Line(answer=answer))


if __name__ == "__main__":
    main()
