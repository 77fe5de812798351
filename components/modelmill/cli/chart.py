"""What of charts/modelmill follows from the code: the deployment's part of its schema, a table, and the DAG file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from modelmill.core.s3_address import PATTERN
from modelmill.deployment import Deployment
from modelmill.line import LINE
from modelmill.runners.containers import BEGIN, DECIDE, FINISH

FILLED = ("namespace", "service_accounts", "backend")
"""Fields of a deployment that are no values: the release's namespace, ``serviceAccounts``; a chart has a cluster."""


def values_schema(present: str) -> str:
    """values.schema.json with the deployment's fields as the code has them; the rest is a person's.

    Charts' schemas are of draft 7 for helm 3; what pydantic writes for a deployment is the same in it.
    """
    schema = json.loads(present)
    deployment = Deployment.model_json_schema(ref_template="#/$defs/{model}")
    definitions = deployment.pop("$defs")
    for name in FILLED:
        del deployment["properties"][name]
    # A pod has no folder of the machine that the chart is installed from.
    up = {"pattern": r"/\.\.(/|$)"}
    deployment["properties"]["store"].update({"pattern": PATTERN, "not": up, "description": "s3://BUCKET/PREFIX"})
    del deployment["properties"]["store"]["default"]
    # Named one by one, so that a step that the line lacks is refused with its path.
    steps = deployment["properties"]["steps"]
    own = steps.pop("additionalProperties")
    names = [*dict.fromkeys(node.id for node in LINE), BEGIN, DECIDE, FINISH]
    steps.update(properties=dict.fromkeys(names, own), additionalProperties=False)
    schema["properties"]["deployment"] = deployment
    schema["$defs"] = {name: item for name, item in definitions.items() if name not in {"Zone", "Backend"}}
    _close(deployment)
    _close(schema["$defs"])
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _close(schema: Any) -> None:
    """Refuse names that no pattern of a mapping's names allows; pydantic refuses them, and its schema does not."""
    for item in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _close(item)
    if isinstance(schema, dict) and "patternProperties" in schema:
        schema["additionalProperties"] = False


def values_rows(folder: Path) -> list[list[str]]:
    """Value, default and meaning of each value of the chart, in the order of values.yaml."""
    values = yaml.safe_load((folder / "values.yaml").read_text("utf-8"))
    schema = json.loads((folder / "values.schema.json").read_text("utf-8"))
    return [
        [f"`{path}`", f"`{json.dumps(value, ensure_ascii=False)}`", meaning]
        for path, value, meaning in _leaves(values, schema, "")
    ]


def _leaves(values: dict[str, Any], schema: dict[str, Any], prefix: str) -> Iterator[tuple[str, object, str]]:
    for name, value in values.items():
        field = schema["properties"][name]
        # A field by reference (what a policy opens, a pool) is shown whole.
        if "properties" in field and value:
            yield from _leaves(value, field, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, str(field.get("description", ""))
