"""The model card: what the model is, the numbers with their intervals, and code that loads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources

import yaml
from jinja2 import Environment, StrictUndefined

from modelmill.core.bundle import BROWSERS
from modelmill.core.contract import JSON
from modelmill.core.model import ModelDocument
from modelmill.steps.publish.assemble import Lane, browser_graph
from modelmill.steps.publish.contract import Settings


def write(
    settings: Settings,
    digest: str,
    lanes: Sequence[Lane],
    paths: Mapping[str, str],
    refused: Sequence[Lane],
    licence: str | None,
) -> str:
    """The card as Markdown with the Hugging Face Hub's YAML front matter.

    Args:
        settings: The step's; the recipe in them says where model and data came from.
        digest: The bundle's.
        lanes: The passed lanes, the one at the root first.
        paths: Target → where its model lies in the bundle.
        refused: The lanes that are left out.
        licence: The base model's, as its source names it; None where it names none.
    """
    first = lanes[0]
    return _render(
        "card.md.j2",
        settings=settings,
        front_matter=yaml.safe_dump(_front_matter(settings, lanes, licence), sort_keys=False, allow_unicode=True),
        digest=digest,
        lanes=lanes,
        paths=paths,
        refused=refused,
        left_out=left_out,
        task=first.document.task,
        source=settings.told("model", "source"),
        data=settings.told("data", "source"),
        method=settings.told("retrain", "method") or "none",
        metric=first.evidence.metric.name,
        rows=f"{first.evidence.rows:,}",
        confidence=f"{100 * first.evidence.confidence:g} %",
        threads=first.evidence.measurements.hardware.threads,
        code=_code(first.document),
        licence=licence,
        browser=_browser(first),
    )


def left_out(lane: Lane) -> str:
    """Why a lane is not in the bundle, in words."""
    return f"The lane {lane.target} is left out ({lane.evidence.verdict.value}): {lane.evidence.reasons[0]}"


def _front_matter(settings: Settings, lanes: Sequence[Lane], licence: str | None) -> dict[str, JSON]:
    """Metadata of the Hub's model cards. A licence that the base model's source does not name is not guessed."""
    document = lanes[0].document
    precisions = sorted({lane.document.precision for lane in lanes})
    named: dict[str, JSON] = {"license": licence} if licence else {"license": "other", "license_name": "unknown"}
    found: dict[str, JSON] = {
        **named,
        "library_name": "onnx",
        "pipeline_tag": document.task,
        "tags": ["onnx", "onnxruntime", "modelmill", *precisions],
        "metrics": [lanes[0].evidence.metric.name],
    }
    for name, section in (("base_model", "model"), ("datasets", "data")):
        source = settings.told(section, "source")
        if source.startswith("hf://"):
            repository = source.removeprefix("hf://").partition("@")[0]
            found[name] = [repository] if name == "datasets" else repository
    found["model-index"] = [{"name": settings.model, "results": [_result(settings, lane) for lane in lanes]}]
    return found


def _result(settings: Settings, lane: Lane) -> JSON:
    """A lane's numbers as the Hub lists them. Source: huggingface.co/docs/hub/model-cards, model-index."""
    evidence = lane.evidence
    source = settings.told("data", "source")
    name = source.partition(":")[2].removeprefix("//").partition("@")[0].rstrip("/") or settings.model
    dataset: dict[str, JSON] = {"name": name, "type": name if source.startswith("hf://") else name.rpartition("/")[2]}
    split = settings.told("data", "evaluate")
    if split:
        dataset["split"] = split
    low, high = evidence.candidate_ci
    words = f"{evidence.metric.name}, {lane.target}, {evidence.precision}, {100 * evidence.confidence:g} % interval"
    metric: JSON = {
        "type": evidence.metric.name,
        "value": round(evidence.candidate, 6),
        "name": f"{words} {low:.4f} to {high:.4f}",
    }
    return {"task": {"type": lane.document.task}, "dataset": dataset, "metrics": [metric]}


def _browser(lane: Lane) -> dict[str, str] | None:
    """How transformers.js loads the graph at the root; None where it is not one file, or gives no labels.

    External data would have to be called ``model.onnx_data``, and the graph names it otherwise.
    """
    components = list(lane.document.components.values())
    if len(components) != 1 or components[0].external_data or not lane.document.labels:
        return None
    copied = browser_graph(lane) is not None
    quantized = copied and lane.document.precision == "int8"
    return {"subfolder": BROWSERS if copied else "", "dtype": "q8" if quantized else "fp32"}


def _code(document: ModelDocument) -> str | None:
    """Code that gives a class and its score for texts; None for models that take no texts or give no classes."""
    if "tokenizer" not in document.processors or not document.labels:
        return None
    stages = [
        {
            "session": "session" if len(document.execution.stages) == 1 else f"session_{number}",
            "file": document.components[stage.component].file,
            "feeds": stage.feeds,
            "gives": stage.gives,
        }
        for number, stage in enumerate(document.execution.stages, 1)
    ]
    result = next(iter(document.execution.stages[-1].gives.values()))
    return _render("scores.py.j2", stages=stages, result=result, max_length=document.max_length)


def _render(template: str, **context: object) -> str:
    environment = Environment(
        # Markdown and Python, not HTML: what comes from data goes through `code`.
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": _as_code, "share": _share, "shares": _shares, "speedup": _speedup}
    source = (resources.files("modelmill.steps.publish") / template).read_text("utf-8")
    return environment.from_string(source).render(**context)


def _as_code(text: str) -> str:
    """``text`` fit to stand between backticks in one line of a table."""
    return " ".join(text.replace("`", "'").replace("|", "/").split())


def _share(value: float) -> str:
    return f"{value:.4f}"


def _shares(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.4f} to {bounds[1]:.4f}"


def _speedup(lane: Lane) -> str:
    cells = lane.evidence.measurements.latency
    if not cells:
        return "not measured"
    first = cells[0]
    lower, upper = first.speedup_ci
    shape = f"batch {first.batch_size}, length {first.sequence_length}"
    return f"{first.speedup:.2f} × [{lower:.2f} to {upper:.2f}] ({shape})"
