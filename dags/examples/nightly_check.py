"""Does the model that serves still get yesterday's texts right? One of modelmill's steps between tasks of your own.

Your own tasks run where Airflow's do, and give and take artifacts of the store by their digests.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import DAG, task

from modelmill import deployment as deployments
from modelmill.airflow import step

DEPLOYMENT = deployments.load(Path(os.environ["MODELMILL_DEPLOYMENT"]))
LEAST = 0.9


@task
def labelled_tickets() -> str:
    """Put what people have labelled since yesterday into the store; its digest."""
    import json
    import tempfile

    from modelmill.artifacts import put

    # Yours: a query. An id is a text that tells a row from the others.
    labels = ["card", "money", "account"]
    texts = {"card": "my card was stolen", "money": "why this fee", "account": "verify my phone number"}
    rows = [
        {"id": f"ticket:{number}", "text": f"{texts[label]} {number}", "label": label}
        for number, label in enumerate(labels * 20)
    ]
    about = {"task": "text-classification", "role": "evaluate", "columns": ["text", "label"], "labels": labels}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "dataset.json").write_text(json.dumps({**about, "count": len(rows)}))
        return put(DEPLOYMENT.store, folder, "rows")


@task
def serving_model() -> str:
    """The bundle that the channel names now; its digest."""
    from modelmill.artifacts import serving

    return serving(DEPLOYMENT.store, "tickets", "production")


@task
def judge(facts: dict[str, float]) -> str:
    """Say in one sentence whether somebody should look at the model."""
    words = "fine" if facts["accuracy"] >= LEAST else "look at it"
    return f"{facts['accuracy']:.3f} of {facts['rows']:.0f} tickets: {words}"


with DAG("nightly-check", schedule="0 5 * * *", catchup=False, tags=["modelmill"]) as dag:
    evaluated = step(
        "evaluate-candidate",
        task_id="evaluate",
        inputs={"model": serving_model(), "rows": labelled_tickets()},
        settings={"task": "text-classification", "runtime": "onnxruntime"},
        deployment=DEPLOYMENT,
    )
    judge(evaluated.output["facts"])
