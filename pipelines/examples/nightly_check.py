"""Does the model that serves still get yesterday's texts right? One of modelmill's steps between two of your own.

``python pipelines/examples/nightly_check.py nightly-check.yaml`` compiles it. Your own steps know nothing of modelmill:
they write its rows as two plain files, and read its numbers as Kubeflow's metrics.
"""

import sys

from kfp import compiler, dsl

from modelmill.kubeflow import evaluate_candidate

PYTHON = "python:3.11-slim-bookworm"


@dsl.component(base_image=PYTHON)
def labelled_tickets(tickets: dsl.Output[dsl.Dataset]) -> None:
    """Write what people have labelled since yesterday: rows.jsonl, a JSON row a line, and dataset.json."""
    import json
    from pathlib import Path

    # Yours: a query. An id is a text that tells a row from the others.
    labels = ["card", "money", "account"]
    texts = {"card": "my card was stolen", "money": "why this fee", "account": "verify my phone number"}
    rows = [
        {"id": f"ticket:{number}", "text": f"{texts[label]} {number}", "label": label}
        for number, label in enumerate(labels * 20)
    ]
    about = {"task": "text-classification", "role": "evaluate", "columns": ["text", "label"], "labels": labels}
    folder = Path(tickets.path)
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "dataset.json").write_text(json.dumps({**about, "count": len(rows)}))


@dsl.component(base_image=PYTHON)
def judge(metrics: dsl.Input[dsl.Metrics], classification: dsl.Input[dsl.ClassificationMetrics], least: float) -> str:
    """Say in one sentence whether somebody should look at the model."""
    accuracy, rows = metrics.metadata["accuracy"], int(metrics.metadata["rows"])
    matrix = classification.metadata["confusionMatrix"]
    labels = [item["displayName"] for item in matrix["annotationSpecs"]]
    right = {label: row["row"][place] for place, (label, row) in enumerate(zip(labels, matrix["rows"], strict=True))}
    words = "fine" if accuracy >= least else f"look at it, at {min(right, key=right.get)} first"
    return f"{accuracy:.3f} of {rows} tickets: {words}"


@dsl.pipeline(name="nightly-check", description="The model that serves, on yesterday's labelled tickets.")
def nightly_check(model_uri: str, least: float = 0.9) -> str:
    """Evaluate a model on new rows.

    Args:
        model_uri: a bundle that modelmill published, or a model artifact, in the pipeline's own storage.
        least: the accuracy below which somebody should look at it.
    """
    model = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model)
    evaluated = evaluate_candidate(
        model=model.output,
        rows=labelled_tickets().outputs["tickets"],
        task="text-classification",
        runtime="onnxruntime",
    )
    evaluated.set_cpu_limit("2").set_memory_limit("4Gi")
    judged = judge(
        metrics=evaluated.outputs["metrics"], classification=evaluated.outputs["classification"], least=least
    )
    return judged.output


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python pipelines/examples/nightly_check.py FILE.yaml")
    compiler.Compiler().compile(nightly_check, sys.argv[1])
