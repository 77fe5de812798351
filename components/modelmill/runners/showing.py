"""Where an orchestrator shows what a task found: in the task's log, or as artifacts on Kubeflow's pages.

On Kubeflow what is shown becomes metadata of output artifacts, or an artifact's own content.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from modelmill.core.contract import JSON
from modelmill.core.errors import UsageError
from modelmill.core.progress import Progress
from modelmill.runners.containers import LOG, Shown
from modelmill.runners.executor import Executor
from modelmill.runners.findings import Findings

Show = Callable[[Findings], None]


def shower(kinds: Sequence[Shown], place: str, progress: Progress) -> Show | None:
    """What is given findings and shows those kinds of them, or None where nothing is to be shown.

    Args:
        kinds: What to show.
        place: ``log``, or Kubeflow's executor input.
        progress: The log.

    Raises:
        UsageError: The place is neither.
    """
    if not kinds:
        return None
    if place == LOG:
        return lambda findings: _to_log(findings, kinds, progress)
    try:
        executor = Executor(place)
    except UsageError:
        what = "it is neither 'log' nor an executor input of Kubeflow"
        raise UsageError(what, where="--show-in", fix="start this task as the compiled pipeline does") from None
    return lambda findings: _to_kubeflow(findings, kinds, executor)


def _to_log(findings: Findings, kinds: Sequence[Shown], progress: Progress) -> None:
    # A matrix and a page are no lines of a log; the report's address is in the log already.
    if Shown.METRICS in kinds and findings.metrics:
        progress.fact(f"metrics: {json.dumps(findings.metrics)}")


def _to_kubeflow(findings: Findings, kinds: Sequence[Shown], executor: Executor) -> None:
    metadata: dict[str, Mapping[str, JSON]] = {}
    if Shown.METRICS in kinds:
        metadata[Shown.METRICS.value] = findings.metrics
    if Shown.CONFUSION in kinds and findings.confusion is not None:
        metadata[Shown.CONFUSION.value] = findings.confusion.metadata()
    page = executor.path(Shown.REPORT.value) if Shown.REPORT in kinds and findings.page is not None else None
    if page is not None and findings.page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(findings.page, "utf-8")
    executor.write({}, metadata)
