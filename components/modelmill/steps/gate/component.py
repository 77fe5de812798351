"""gate as a Kubeflow component, for a pipeline of your own."""

# kfp reads the annotations themselves: no `from __future__ import annotations` here.
from typing import Optional

from kfp import dsl

from modelmill.core.image import CPU_IMAGE


@dsl.container_component
def gate(
    baseline: dsl.Input[dsl.Artifact],
    candidate: dsl.Input[dsl.Artifact],
    measurements: dsl.Input[dsl.Artifact],
    smoke: dsl.Input[dsl.Artifact],
    model: dsl.Input[dsl.Model],
    rows: dsl.Input[dsl.Dataset],
    verdict: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    decision: dsl.OutputPath(str),  # type: ignore[valid-type]
    task: str,
    target: str,
    policy_metric: Optional[str] = None,
    policy_unit: Optional[str] = None,
    policy_max_drop_points: float = 1.0,
    policy_confidence: float = 0.95,
    policy_min_speedup: Optional[float] = None,
    policy_min_gain_over_unquantized: Optional[float] = None,
    policy_max_size_ratio: Optional[float] = None,
    policy_max_peak_rss_bytes: Optional[int] = None,
    policy_max_load_seconds: Optional[float] = None,
    policy_max_cost_per_million_texts: Optional[float] = None,
    policy_max_batch_flips: Optional[int] = None,
    policy_max_drop_vs_champion_points: Optional[float] = None,
    policy_max_drop_vs_reference_points: Optional[float] = None,
    policy_max_served_p95_ratio: Optional[float] = None,
    policy_min_metric: Optional[float] = None,
    policy_min_rows: int = 50,
    policy_max_leaked_share: float = 0.05,
    policy_max_class_shift: Optional[float] = None,
    policy_max_class_shift_vs_published: Optional[float] = None,
    policy_slices_by: Optional[str] = None,
    policy_slices_max_drop_points: float = 5.0,
    policy_slices_min_rows: int = 30,
    core_hour: Optional[float] = None,
    currency: str = "USD",
) -> dsl.ContainerSpec:
    """Judge the candidate by paired non-inferiority on the same rows, and by speed and size.

    Args:
        baseline: the baseline's predictions.
        candidate: the candidate's predictions on the same rows.
        measurements: what the candidate takes.
        smoke: what a real server made of the candidate.
        model: the candidate, for its precision and facts.
        rows: evaluation rows, for the texts of disagreements.
        verdict: verdict.json.
        report: report.html of this lane.
        metrics: the step's numbers.
        decision: what the verdict says: pass, fail or inconclusive.
        task: the ML task: text-classification.
        target: the lane's name, for the verdict and the report.
        policy_metric: metric that decides, one of the task's: accuracy or macro_f1; left out, its primary one.
        policy_unit: column of the evaluation rows that names what belongs together, such as a conversation; left out,
            each row stands for itself.
        policy_max_drop_points: points (100 × share) of the metric that may be lost.
        policy_confidence: one-sided confidence of the paired interval.
        policy_min_speedup: over PyTorch eager in the first measured cell.
        policy_min_gain_over_unquantized: over the fastest unquantized model on the runtime, in the first cell.
        policy_max_size_ratio: the graphs' bytes over the checkpoint's safetensors.
        policy_max_peak_rss_bytes: memory at its peak of a process that loads and runs the candidate alone.
        policy_max_load_seconds: from file to the first answer in a fresh process, imports left out.
        policy_max_cost_per_million_texts: in the currency of the deployment's prices, tokenising left out.
        policy_max_batch_flips: predictions of the 256 rows tried that may change with their batch.
        policy_max_drop_vs_champion_points: points of the metric that may be lost against what the channel serves now.
        policy_max_drop_vs_reference_points: the same against the channel's reference, which a person alone moves:
            modelmill channel reference.
        policy_max_served_p95_ratio: of one text's time in the server over its time in one process, 95th percentiles,
            tokenising on both sides; inconclusive where no server was tried.
        policy_min_metric: share that the candidate's metric must reach.
        policy_min_rows: evaluation rows below which no verdict is given.
        policy_max_leaked_share: share of the evaluation rows whose text may also stand among those that chose.
        policy_max_class_shift: distance of the classes' shares from the training rows'; more must be shown to refuse.
        policy_max_class_shift_vs_published: the same from the evaluation and the training rows of what the channel
            serves now.
        policy_slices_by: class, or a column of the evaluation rows: each of its values is a slice; left out, none.
        policy_slices_max_drop_points: points of right rows that a slice may lose; more must be shown to refuse.
        policy_slices_min_rows: rows below which a slice is thin: listed, never judged.
        core_hour: price of one core for an hour, from the deployment, where a cost is judged.
        currency: of the price.
    """
    return dsl.ContainerSpec(
        image=CPU_IMAGE,
        command=["modelmill", "component", "gate"],
        args=[
            f"--input=baseline={baseline.path}",
            f"--input=candidate={candidate.path}",
            f"--input=measurements={measurements.path}",
            f"--input=smoke={smoke.path}",
            f"--input=model={model.path}",
            f"--input=rows={rows.path}",
            f"--output=verdict={verdict.path}",
            f"--output=report={report.path}",
            "--executor-input={{$}}",
        ],
    )
