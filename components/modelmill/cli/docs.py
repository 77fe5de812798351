"""The generated documents: step tables, recipe reference, command reference, and what the chart takes from the code.

``python -m modelmill.cli.docs`` writes them; with ``--check`` it fails where one is not what the code says. A document
with marks (``<!-- generated: NAME -->`` … ``<!-- /generated -->``) is filled between them; the rest is a person's.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from modelmill import recipe as recipes
from modelmill.cli import chart
from modelmill.cli.main import app
from modelmill.cli.recipes import starter
from modelmill.core.contract import StepContract
from modelmill.deployment import Deployment
from modelmill.line import LINE, Scope
from modelmill.runners.components import DECISION, component_of

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "components" / "modelmill"
CHART = ROOT / "charts" / "modelmill"
SERVING_CHART = ROOT / "charts" / "serving"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *(line(row) for row in rows)])


def _type_of(schema: dict[str, Any]) -> str:
    """A JSON schema's type for people."""
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(_type_of(item) for item in schema.get("anyOf") or schema["oneOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "enum" in schema:
        return ", ".join(f"`{item}`" for item in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_type_of(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _fields(schema: dict[str, Any]) -> str:
    """A table of a JSON schema's fields."""
    required = set(schema.get("required", []))
    rows = []
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in required else f"`{field['default']}`" if "default" in field else "see schema"
        rows.append([f"`{name}`", _type_of(field), default, str(field.get("description", ""))])
    return _table(["field", "type", "default", "meaning"], rows) if rows else "No fields."


def contract_tables(contracts: list[StepContract]) -> str:
    """Ports and settings of a step's parts."""
    parts = []
    for contract in contracts:
        title = f"### `{contract.id}`\n\n" if len(contracts) > 1 else ""
        machine = ", ".join(sorted(item.value.replace("_", " ") for item in contract.key_on)) or "nothing"
        if contract.key_on_of:
            machine += "; the hardware class for a runtime on a GPU"
        ports = [
            [direction, f"`{port.name}`" + (" (one a lane)" if port.many else ""), port.type.value, port.description]
            for direction, found in (
                ("in", contract.input_ports),
                ("sensed", contract.sensed_ports),
                ("out", contract.output_ports),
            )
            for port in found
        ]
        text = (
            f"{title}{contract.summary} Version {contract.version}, {contract.kind.value}; its key holds the versions"
            f" of {_packages(contract)}, and of the machine {machine}.\n\n"
            f"{_table(['', 'port', 'type', 'holds'], ports)}\n\n"
        )
        parts.append(text + _fields(contract.settings.model_json_schema()))
    return "\n\n".join(parts)


def _packages(contract: StepContract) -> str:
    named = [*contract.packages, *(["the runtime"] if contract.packages_of else [])]
    return ", ".join(named) or "no package"


def component_tables(contracts: list[StepContract]) -> str:
    """What a step takes and makes in a pipeline of somebody's own."""
    parts = []
    for contract in contracts:
        found = component_of(contract)
        title = f"### `{found.name}`\n\n" if len(contracts) > 1 else ""
        artifacts = [
            [direction, f"`{item.name}`", item.type, item.description]
            for direction, items in (("in", found.inputs), ("out", found.outputs))
            for item in items
        ]
        if found.decides:
            artifacts.append(["out", f"`{DECISION}`", "String", "pass, fail or inconclusive: a condition takes it"])
        parameters = [
            [
                f"`{item.name}`",
                item.type,
                "required" if item.required else "–" if item.default is None else f"`{json.dumps(item.default)}`",
                item.description,
            ]
            for item in found.parameters
        ]
        parts.append(
            f"{title}`from modelmill.kubeflow import {found.name}`, or component"
            f"{'-' + contract.part if contract.part else ''}.yaml. Without Kubeflow:"
            f" `modelmill component {contract.id}` with `--input`, `--output` and `--set`.\n\n"
            + _table(["", "artifact", "type", "holds"], artifacts)
            + "\n\n"
            + _table(["parameter", "type", "default", "meaning"], parameters)
        )
    return "\n\n".join(parts)


def steps_page() -> str:
    """components/README.md: step → ports → settings → image."""
    rows = []
    for node in LINE:
        contract = node.contract
        folder = contract.name.replace("-", "_")
        rows.append(
            [
                f"[`{contract.id}`](modelmill/steps/{folder}/README.md)",
                "one a target" if node.scope is Scope.LANE else "one a run",
                ", ".join(f"`{port.name}`" for port in contract.input_ports) or "–",
                ", ".join(f"`{port.name}`" for port in contract.output_ports),
                ", ".join(f"`{name}`" for name in contract.settings.model_fields),
                contract.kind.value,
            ]
        )
    return (
        "# The steps\n\n"
        "Written by `make docs` from `modelmill/line.py` and the contracts. Every step is run as"
        " `modelmill step NAME --store URI --settings FILE --input PORT=DIGEST`, wherever the `ml` extra is. In a"
        " pipeline of your own each is a Kubeflow component (`modelmill.kubeflow`), or an Airflow task"
        " (`modelmill.airflow.step`).\n\n"
        + _table(["step", "stands", "inputs", "outputs", "settings", "outputs are"], rows)
        + "\n"
    )


def recipe_page() -> str:
    """pipelines/README.md: every field of a recipe."""
    schema = recipes.schema()
    parts = [
        "# Recipes\n",
        "Written by `make docs` from `modelmill/recipe.py`. `modelmill init` starts a recipe, `modelmill check` "
        "validates one, `modelmill schema` prints the JSON schema for editors. Structural fields "
        f"({', '.join(f'`{name}`' for name in recipes.structural_fields())}) shape the line itself; every other "
        "field may be set for one run with `--set PATH=VALUE`.\n",
        "[recipes/demo.yaml](recipes/demo.yaml) is what `modelmill init` writes and `make demo` runs.\n",
        f"## Recipe\n\n{_fields(schema)}\n",
    ]
    return "\n".join(parts + _definitions(schema))


_DAG_FILE = """\
## The DAG file

[modelmill_dag.py](modelmill_dag.py) makes a DAG of each recipe (`*.yaml`, `*.yml`) in a folder. It reads three
environment variables; an empty one is as one that is not set.

| variable | names | what is wrong is said by |
| --- | --- | --- |
| `MODELMILL_RECIPES` | the folder; `recipes` beside the file, where it is not set | an import error, where it is not \
there; a wrong recipe, and the second of two of one name, by a DAG `FILE-is-wrong` beside the others |
| `MODELMILL_DEPLOYMENT` | the deployment's file, described below | an import error |
| `MODELMILL_SCHEDULE` | when all of them run: a cron expression of five fields, or a word such as `@daily` | a DAG \
`MODELMILL_SCHEDULE-is-wrong`; until it is mended, the recipes' DAGs stay and start by hand alone |
"""


def deployment_page() -> str:
    """dags/README.md: every field of a deployment."""
    schema = Deployment.model_json_schema()
    parts = [
        "# Deployments\n",
        "Written by `make docs` from `modelmill/deployment.py`. A deployment says where the line runs, on one machine, "
        "on Kubeflow and on Airflow alike; nothing of it is in a step key. "
        "[../pipelines/deployment.yaml](../pipelines/deployment.yaml) is one to start from.\n",
        _DAG_FILE,
        f"## Deployment\n\n{_fields(schema)}\n",
    ]
    return "\n".join(parts + _definitions(schema))


def _definitions(schema: dict[str, Any]) -> list[str]:
    """A section for each document inside a schema."""
    return [
        f"## {name}\n\n{str(definition.get('description', '')).strip()}\n\n{_fields(definition)}\n"
        for name, definition in sorted(schema.get("$defs", {}).items())
        if "properties" in definition
    ]


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def commands_page() -> str:
    """cli/README.md: the --help of every command."""
    runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"})
    parts = ["# Commands\n", "Written by `make docs`: what each command prints for `--help`.\n"]
    for path, _ in _commands(typer.main.get_command(app), "modelmill"):
        shown = runner.invoke(app, [*path.split()[1:], "--help"], prog_name="modelmill")
        text = "\n".join(line.rstrip() for line in shown.output.strip().splitlines())
        parts.append(f"## {path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def documents() -> Iterator[tuple[Path, Callable[[str], str]]]:
    """Every generated document and how it is made from what is there."""
    yield ROOT / "components" / "README.md", lambda _: steps_page()
    yield ROOT / "pipelines" / "README.md", lambda _: recipe_page()
    yield ROOT / "pipelines" / "recipes" / "demo.yaml", lambda _: starter()
    yield ROOT / "dags" / "README.md", lambda _: deployment_page()
    yield SOURCE / "cli" / "README.md", lambda _: commands_page()
    for name in dict.fromkeys(node.contract.name for node in LINE):
        contracts = [node.contract for node in LINE if node.contract.name == name]
        path = SOURCE / "steps" / name.replace("-", "_") / "README.md"
        tables = {"contract": contract_tables(contracts), "component": component_tables(contracts)}
        yield path, lambda text, tables=tables: _filled(text, tables)  # type: ignore[misc]
    yield CHART / "values.schema.json", chart.values_schema
    for folder in (CHART, SERVING_CHART):
        yield folder / "README.md", lambda text, folder=folder: _filled(text, {"values": values_table(folder)})  # type: ignore[misc]
    yield CHART / "files" / "modelmill_dag.py", lambda _: (ROOT / "dags" / "modelmill_dag.py").read_text("utf-8")


def values_table(folder: Path) -> str:
    """A chart's values with their defaults."""
    return _table(["value", "default", "meaning"], chart.values_rows(folder))


def _filled(text: str, tables: dict[str, str]) -> str:
    for name, content in tables.items():
        marks = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- /generated -->)", re.DOTALL)
        text = marks.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)  # type: ignore[misc]
    return text


def main() -> None:
    """Write the documents, or with ``--check`` name those that are not what the code says."""
    check = "--check" in sys.argv[1:]
    stale = []
    for path, make in documents():
        present = path.read_text("utf-8") if path.is_file() else ""
        wanted = make(present)
        if wanted != present:
            stale.append(path)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(wanted, "utf-8")
    for path in stale:
        sys.stdout.write(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}\n")
    if check and stale:
        sys.stdout.write("run `make docs`\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
